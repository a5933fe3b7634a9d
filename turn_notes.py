"""What a chat completion's line in the log tells, and, where the operator wants it, what was asked and answered."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from chat_service import Completion
from content_log import log_content, shows_content
from models import ChatCompletionRequest
from request_record import RequestRecord
from turns import TurnEnded, TurnEvent, Usage, total_cost


@dataclass
class TurnNotes:
    """Takes notes of one completion."""

    record: RequestRecord
    _ends: list[TurnEnded] = field(default_factory=list)

    def asked(self, body: ChatCompletionRequest, parameters: Mapping[str, Any]) -> None:
        """Note what is wanted."""
        self.record.model, self.record.stream = body.model, bool(body.stream)
        self.record.in_session = body.session_id is not None
        log_content("prompt", messages=parameters["messages"])

    def began(self, completion: Completion) -> None:
        """Note that the model has begun to answer."""
        self.record.answered_by, self.record.process_origin = completion.started.model, completion.origin
        self.record.overhead_ms = round(completion.overhead_seconds * 1000, 1)
        self.record.first_event_ms = self.record.elapsed_ms

    def saw(self, event: TurnEvent) -> None:
        """Note an event, if it is an end."""
        if not isinstance(event, TurnEnded):
            return
        self._ends.append(event)
        if shows_content():
            log_content("answer", content=[asdict(block) for block in event.answer.content])

    def completed(self) -> Sequence[TurnEnded]:
        """Note that all is answered; return the ends of the turns."""
        used = sum((ended.usage for ended in self._ends), Usage())
        self.record.prompt_tokens, self.record.completion_tokens = used.prompt_tokens, used.output_tokens
        self.record.cost_usd = total_cost(self._ends)
        self.record.is_answered = True
        return self._ends
