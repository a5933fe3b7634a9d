"""What is kept of a process, by itself: costs are told once, and commands are watched from where their turn begins."""

from pathlib import Path

from agent_task import Grant
from process_books import Costs, DiskWatch


def test_costs_are_differences_and_told_once() -> None:
    """Claude Code tells totals; what a turn told is told, the rest is still to be."""
    costs = Costs()
    assert costs.of_turn(1.0) == 1.0
    costs.tell(1.0)
    assert costs.take_untold() == 0
    assert costs.of_turn(None) is None
    assert costs.of_turn(1.5) == 0.5
    assert costs.take_untold() == 0.5
    assert costs.take_untold() == 0


def test_commands_are_watched_from_where_they_begin(tmp_path: Path) -> None:
    """In all directories; a turn may begin with more than it may make, and only commands are watched."""
    directories = tmp_path / "work", tmp_path / "scratch"
    for directory in directories:
        directory.mkdir()
    watch = DiskWatch(directories)
    assert not watch.has_outgrown()
    (directories[0] / "a").write_bytes(bytes(5000))
    watch.begin(Grant(frozenset({"Bash"}), most_bytes=1000))
    assert not watch.has_outgrown()
    (directories[1] / "b").write_bytes(bytes(1001))
    assert watch.has_outgrown()
    for grant in (Grant(frozenset({"Write"}), most_bytes=1000), Grant(frozenset({"Bash"}))):
        watch.begin(grant)
        (directories[1] / "b").write_bytes(bytes(9000))
        assert not watch.has_outgrown()
