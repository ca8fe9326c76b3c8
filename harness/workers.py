"""Several workers side by side: checks are answered ahead of the one who asks for them in order, on the cores that would idle."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue

from harness.contract import Check
from harness.isolation import Hangs, Worker
from harness.record import Conformance

#: More processes than this spend longer on loading torch than they save.
AT_MOST = 4

_Group = list[tuple[Check, "Future[Conformance]"]]


def sensible(threads: int, cores: int) -> int:
    """How many processes of so many ``threads`` this one may keep busy: no more than it has ``cores`` for."""
    return max(1, min(AT_MOST, cores // max(1, threads)))


class Workers:
    """Up to ``count`` worker processes. The other arguments are those of :class:`~harness.isolation.Worker`.

    The checks of one contract are answered by one process, one after the other: they share cases, and it keeps the oracle's answers.
    """

    def __init__(self, references: Sequence[str], limit: float, count: int) -> None:
        hangs = Hangs()
        self._workers = [Worker(references, limit, hangs) for _ in range(count)]
        self._threads: list[threading.Thread] = []
        self._groups: SimpleQueue[_Group | None] = SimpleQueue()
        self._answers: dict[str, Future[Conformance]] = {}
        self._stopping = threading.Event()

    def prepare(self) -> None:
        """Begins with what one process needs, and does not wait for it; how many are of use is not known before something is expected."""
        self._workers[0].prepare()

    def expect(self, checks: Iterable[Check]) -> None:
        """Begins with ``checks``, which :meth:`run` will be asked for, in this order."""
        for _, together in itertools.groupby(checks, key=lambda check: check.contract.id):
            group: _Group = [(check, Future()) for check in together]
            self._answers.update((check.id, answer) for check, answer in group)
            self._groups.put(group)
            if len(self._threads) < len(self._workers):
                thread = threading.Thread(target=self._work, args=(self._workers[len(self._threads)],), daemon=True)
                self._threads.append(thread)
                thread.start()

    def run(self, check: Check) -> Conformance:
        """What came of ``check``, as :meth:`Worker.run <harness.isolation.Worker.run>` says it, whether it was expected or not."""
        if check.id not in self._answers:
            self.expect([check])
        return self._answers.pop(check.id).result()

    def stop(self) -> None:
        """Ends the processes; what was expected and not yet asked for is given up."""
        self._stopping.set()
        for _ in self._threads:
            self._groups.put(None)
        for worker in self._workers:
            worker.kill()
        for thread in self._threads:
            thread.join()
        for worker in self._workers:
            worker.stop()

    def _work(self, worker: Worker) -> None:
        while (group := self._groups.get()) is not None:
            for check, answer in group:
                if self._stopping.is_set():
                    return
                try:
                    answer.set_result(worker.run(check))
                except Exception as error:  # whatever it is, whoever asks for the answer gets it
                    answer.set_exception(error)
