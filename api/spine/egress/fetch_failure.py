"""The failures of a fetch, with the sentence that its row stores."""

from spine.schemas import ErrorCategory


class FetchFailure(Exception):
    """A fetch cannot continue. `sentence` is for people and contains no secret; retrying may mend a `transient` one."""

    def __init__(self, category: ErrorCategory, sentence: str, *, transient: bool = False) -> None:
        super().__init__(sentence)
        self.category = category
        self.sentence = sentence
        self.transient = transient

    # Prefect pickles exceptions to move them between processes.
    def __reduce__(self) -> tuple[object, ...]:
        """For pickling, with the category."""
        return _rebuild, (self.category, self.sentence, self.transient)


class FetchLost(Exception):
    """A fetch lost its lease, because its process did not renew it in time; another fetch may have started."""

    def __str__(self) -> str:
        """The sentence for its row."""
        return "The fetch did not renew its lease in time and lost it. Another fetch may be reading the source."


def _rebuild(category: ErrorCategory, sentence: str, transient: bool) -> FetchFailure:
    return FetchFailure(category, sentence, transient=transient)
