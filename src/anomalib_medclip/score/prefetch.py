"""Work that threads do ahead of whoever takes its results."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def ahead(work: Callable[[Given], Made], items: Iterable[Given], threads: int) -> Generator[Made]:
    """Results in the order of their items, made by threads before they are asked for.

    As many results as there are threads wait or are being made while one is taken, so memory is
    bounded. The items are drawn in the thread that takes results. If it stops, what was
    begun is finished, and no more is begun.

    Args:
        work: Makes a result.
        items: What from.
        threads: 0 for none: each result is made when it is asked for.

    Example:
        >>> list(ahead(abs, [3, -1, 2], threads=2))
        [3, 1, 2]
    """
    if not threads:
        yield from map(work, items)
        return
    pool, waiting = ThreadPoolExecutor(threads), deque[Future[Made]]()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
