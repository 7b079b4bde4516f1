"""A training step recorded once on the GPU and replayed: the CPU launches one graph per step."""

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3  # steps that libraries take to allocate and to choose their kernels


class GraphedStep:
    """Gives the result of `step(users)`; all that `step` reads must stay where it is on the device.

    The first calls run the step as it is, on a stream of their own, which recording requires; the
    next call records it. `users` has the same shape in all calls. The step draws from `generator`,
    whose draws continue from replay to replay.
    """

    def __init__(self, step: Callable[[Tensor], Tensor], generator: torch.Generator) -> None:
        self._step = step
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(generator)
        self._calls = 0
        self._users: Tensor
        self._result: Tensor

    def __call__(self, users: Tensor) -> Tensor:
        self._calls += 1
        if self._calls <= WARM_UP:
            return self._beside(users)
        if self._calls == WARM_UP + 1:
            self._users = users.clone()
            with torch.cuda.graph(self._graph):  # records, computes nothing
                self._result = self._step(self._users)
        self._users.copy_(users)
        self._graph.replay()
        return self._result.clone()

    def _beside(self, users: Tensor) -> Tensor:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            result = self._step(users)
        torch.cuda.current_stream().wait_stream(stream)
        return result
