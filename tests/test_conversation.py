"""What a process holds, as digests: how much of a request it shares, and how it is rewound."""

from hypothesis import given
from hypothesis import strategies as st

from conversation import Conversation, digests
from turns import Message, TextBlock, ToolResultBlock, ToolUseBlock

CALL = Message("assistant", (TextBlock("Let me see."), ToolUseBlock("a", "look_up", {"x": 1})))
RESULT = Message("user", (ToolResultBlock("a", (TextBlock("1"),)),))


def user(text: str) -> Message:
    """What a user says."""
    return Message("user", (TextBlock(text),))


def assistant(*texts: str) -> Message:
    """What the assistant said, in these blocks."""
    return Message("assistant", tuple(map(TextBlock, texts)))


def holding(*messages: Message) -> Conversation:
    """A conversation whose messages' ids are their places."""
    conversation = Conversation()
    for place, message in enumerate(messages):
        conversation.append(message, str(place))
    return conversation


messages = st.builds(
    Message, st.sampled_from(["user", "assistant"]), st.text("ab", max_size=2).map(lambda t: (TextBlock(t),))
)


@given(st.lists(messages, max_size=6), st.lists(messages, max_size=6))
def test_what_is_shared_is_the_common_beginning(held: list[Message], wanted: list[Message]) -> None:
    """As many messages are shared as are equal from the beginning, whatever is equal later."""
    expected = 0
    while expected < min(len(held), len(wanted)) and held[expected] == wanted[expected]:
        expected += 1
    assert holding(*held).shared_with([*digests(wanted)]) == expected


def test_an_answer_is_the_same_in_however_many_blocks() -> None:
    """Clients give an answer back as one text; a user's blocks are the user's, and stay apart."""
    assert holding(assistant("a", "b")).shared_with([*digests([assistant("ab")])]) == 1
    two = Message("user", (TextBlock("a"), TextBlock("b")))
    assert holding(two).shared_with([*digests([user("ab")])]) == 0


def test_calls_and_results_count() -> None:
    """Another argument, another id or another result is another conversation."""
    held = holding(CALL, RESULT)
    assert held.shared_with([*digests([CALL, RESULT])]) == 2
    other = Message("assistant", (TextBlock("Let me see."), ToolUseBlock("a", "look_up", {"x": 2})))
    assert held.shared_with([*digests([other, RESULT])]) == 0
    assert held.shared_with([*digests([CALL, Message("user", (ToolResultBlock("a", ()),))])]) == 1


def test_a_rewind_names_the_users_messages_from_behind() -> None:
    """Claude Code drops one exchange at a time: each of the user's messages behind the place, last first."""
    conversation = holding(user("1"), assistant("2"), user("3"), assistant("4"), user("5"), assistant("6"))
    assert [*conversation.rewind(2)] == ["4", "2"]
    assert len(conversation) == 2


def test_a_result_goes_with_its_call() -> None:
    """A place between a call and its result can't be kept: the one before the question can."""
    conversation = holding(user("q"), CALL, RESULT, assistant("done"))
    assert [conversation.keepable(wanted) for wanted in range(5)] == [0, 0, 0, 0, 4]
    assert [*conversation.rewind(0)] == ["0"]


def test_a_conversation_that_the_assistant_began_cant_be_rewound_to_nothing() -> None:
    """There is no message of the user's to rewind to."""
    assert holding(assistant("Hi"), user("Hello"), assistant("!")).keepable(0) is None
    assert holding(assistant("Hi"), user("Hello"), assistant("!")).keepable(2) == 1
