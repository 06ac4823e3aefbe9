"""Evaluating recipes over spawned processes, with one BLAS thread each."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from threadpoolctl import threadpool_limits

from modelflex.core.recipe import Recipe
from modelflex.core.trial import Evaluation
from modelflex.errors import UserError
from modelflex.search.problem import Problem, evaluate_recipe

MAX_WORKERS = 1024
_problem: Problem | None = None


def can_spawn(problem: Problem, recipes: Sequence[Recipe]) -> bool:
    """Whether worker processes can import what evaluating needs: the user's quality function and
    plug-ins must not live in the script that runs, nor inside another function.
    """
    try:
        needed = pickle.dumps((_plugins(problem), problem.task, list(recipes)))
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return b"__main__" not in needed


def _plugins(problem: Problem) -> tuple[type, ...]:
    """Classes that a worker must have imported before it can read the model."""
    return tuple(type(layer.plugin) for layer in problem.model.layers)


def _start(plugins: tuple[type, ...], problem: Problem) -> None:
    global _problem
    _problem = problem
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    threadpool_limits(1)


def _leave_with_parent() -> None:
    """End this process when its parent does, even by `kill -9`: the pool's pipes would not tell it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(recipe: Recipe) -> Evaluation:
    if _problem is None:
        raise RuntimeError("the worker was not started with a problem")
    return evaluate_recipe(_problem, recipe)


@contextlib.contextmanager
def _spawning() -> Iterator[None]:
    """Children must not import the user's script again, guarded by __main__ or not; and they take
    their number of BLAS threads from the environment.
    """
    main = sys.modules["__main__"]
    before = {name: os.environ.get(name) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
    sys.modules["__main__"] = types.ModuleType("__main__")
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Workers:
    """A pool that evaluates recipes; results do not depend on the number of processes.

    Args:
        processes: 1 evaluates in this process.

    Raises:
        UserError: more processes than `MAX_WORKERS`.
    """

    def __init__(self, problem: Problem, processes: int) -> None:
        if processes > MAX_WORKERS:
            raise UserError(f"{processes} worker processes are asked for", f"at most {MAX_WORKERS}")
        self._problem = problem
        self._pool: ProcessPoolExecutor | None = None
        if processes > 1:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                processes, context, _start, (_plugins(problem), problem)
            )

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def evaluate(
        self, recipes: Sequence[Recipe], finished: Callable[[int, Evaluation], None]
    ) -> None:
        """Evaluate all; `finished(index, evaluation)` is called as each is done, in any order."""
        if self._pool is None:
            for i, recipe in enumerate(recipes):
                with threadpool_limits(1):
                    evaluation = evaluate_recipe(self._problem, recipe)
                finished(i, evaluation)
            return
        futures: dict[Future[Evaluation], int] = {}
        try:
            for i, recipe in enumerate(recipes):
                with _spawning():
                    futures[self._pool.submit(_work, recipe)] = i
            for future in as_completed(futures):
                finished(futures[future], future.result())
        except BrokenProcessPool:
            raise UserError(
                "a worker process died while it started or evaluated (out of memory, or killed)",
                "enough memory for every process",
                "run the same command again, with fewer workers: finished trials are kept",
            ) from None
