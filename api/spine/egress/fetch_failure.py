"""Why a fetch failed, in the words that its row keeps."""

from spine.schemas import ErrorCategory


class FetchFailure(Exception):
    """A fetch that cannot go on: `sentence` is for people and holds no secret; `transient` may go well later."""

    def __init__(self, category: ErrorCategory, sentence: str, *, transient: bool = False) -> None:
        super().__init__(sentence)
        self.category = category
        self.sentence = sentence
        self.transient = transient

    # Prefect moves exceptions between processes.
    def __reduce__(self) -> tuple[object, ...]:
        """How to make it again, with its category."""
        return _again, (self.category, self.sentence, self.transient)


class FetchLost(Exception):
    """A fetch that was silent for so long that it was given up, and another may have begun."""

    def __str__(self) -> str:
        """What its row would say, had nobody else written it."""
        return "It was silent for too long and was given up; its source may be read by another fetch."


def _again(category: ErrorCategory, sentence: str, transient: bool) -> FetchFailure:
    return FetchFailure(category, sentence, transient=transient)
