"""Training on a GPU: checked, timed and printed in one call of a few minutes; needs no Ray.

python benchmarks/gpu.py
python benchmarks/gpu.py --device cpu --dataset tiny --steps 2 --epochs 1   # the same, anywhere
"""

import argparse
import copy
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from shapes import DATASETS, split_named
from torch import Tensor
from torch.multiprocessing import get_context
from torch.profiler import ProfilerActivity, profile

from tune_srs.config.settings import TrialConfig
from tune_srs.datasets.histories import Split
from tune_srs.evaluation.evaluator import Evaluator
from tune_srs.negatives import UnseenSampler
from tune_srs.training.batch_loss import BatchLoss
from tune_srs.training.batches import Batches
from tune_srs.training.loop import new_state, packs, step_of, train

CPU = torch.device("cpu")
PLAIN: dict[str, Any] = {}
LOW: dict[str, Any] = {"train.precision": "bfloat16"}
FUSED: dict[str, Any] = {"train.fused_attention": True}
GRAPH: dict[str, Any] = {"train.cuda_graph": True}
VARIANTS = {
    "as it is": PLAIN,
    "bfloat16": LOW,
    "fused attention": FUSED,
    "bfloat16, fused": LOW | FUSED,
    "graph": GRAPH,
    "graph, bfloat16, fused": GRAPH | LOW | FUSED,
}


def config_for(device: str, changes: dict[str, Any]) -> TrialConfig:
    given = {"loss.num_positives": 5, "train.device": device}
    return TrialConfig().with_overrides({"preset": "original"} | given | changes)


class Fixed(UnseenSampler):
    """Draws on the CPU, whatever the device, so that two devices get the same negatives."""

    def sample(self, users: Tensor, count: int, generator: torch.Generator) -> Tensor:
        drawn = super().sample(users.cpu(), count, torch.Generator().manual_seed(0))
        return drawn.to(users.device)


def check(device: torch.device, split: Split) -> None:
    """The loss, the gradients and the ranks of the device are those of the CPU."""
    found = []
    for place in (CPU, device):
        config = config_for(place.type, {"model.dropout": 0, "train.fused_attention": True})
        state = new_state(config, split.num_items)
        batches = Batches(split.training, 128, config.model.max_length, place, padded=True)
        (users, *_) = batches.epoch(state.order)
        loss_of = BatchLoss(config, split.training, place)
        loss_of.negatives.sampler = Fixed(split.training, CPU)
        loss = loss_of(state.model, batches.batch(users), state.generator)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad.cpu() for p in state.model.parameters() if p.grad is not None]
        ranks, _ = Evaluator(split, config.evaluation, place).ranks(state.model.eval())
        found.append((loss.detach().cpu(), gradients, ranks.cpu()))
    (loss, gradients, ranks), (other_loss, other_gradients, other_ranks) = found
    torch.testing.assert_close(other_loss, loss, rtol=1e-4, atol=1e-5)
    for one, other in zip(gradients, other_gradients, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-2, atol=1e-4 * one.abs().max().item())
    same = (ranks == other_ranks).double().mean().item()
    print(f"checked: the loss and every gradient as on the CPU, {same:.4%} of the ranks the same")


def stepper(config: TrialConfig, split: Split) -> tuple[Callable[[], Tensor], float]:
    """A step on the next batch, and how many tokens it trains on in the mean."""
    state = new_state(config, split.num_items)
    device = state.generator.device
    batch_size, most = config.train.batch_size, config.model.max_length
    padded = not packs(config.train)
    batches = Batches(split.training, batch_size, most, device, padded)
    loss_of = BatchLoss(config, split.training, device)
    step = step_of(config.train, state, batches, loss_of)
    state.model.train()
    epoch = [users for users in batches.epoch(state.order) if len(users) == batch_size]
    epoch = epoch or list(batches.epoch(state.order))
    tokens = statistics.mean(int((batches.batch(users).following > 0).sum()) for users in epoch)
    endless = itertools.cycle(epoch)
    return lambda: step(next(endless)), tokens


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(step: Callable[[], Tensor], steps: int, device: torch.device) -> float:
    """The time of `steps` steps, without a wait between them."""
    wait(device)
    started = time.perf_counter()
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")  # whatever would make the CPU wait raises
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("default")
    wait(device)
    return time.perf_counter() - started


def busy_share(step: Callable[[], Tensor], steps: int, device: torch.device) -> float:
    """Share of the time during which a kernel of the device runs; on the CPU, of torch's own."""
    on_gpu = device.type == "cuda"
    kinds = [ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]
    with profile(activities=kinds) as profiled:
        seconds = seconds_of(step, steps, device)
    kernels = profiled.key_averages()
    times = (k.self_device_time_total if on_gpu else k.self_cpu_time_total for k in kernels)
    return float(sum(times)) / 1e6 / seconds


def rates(device: torch.device, split: Split, steps: int) -> None:
    for name, changes in VARIANTS.items():
        if device.type == "cpu" and "train.cuda_graph" in changes:
            print(f"{name}: needs a GPU")
            continue
        step, tokens = stepper(config_for(device.type, changes), split)
        for _ in range(10 if device.type == "cuda" else 1):
            step()
        rate = steps / statistics.median(seconds_of(step, steps, device) for _ in range(3))
        share = busy_share(step, steps, device)
        print(
            f"{name}: steps/s {rate:.4g}  valid tokens/s {rate * tokens:.4g}  "
            f"device busy {share:.1%}",
            flush=True,
        )


def one_of_many(
    device: str, dataset: str, changes: dict[str, Any], steps: int, ready: Any, rates: Any
) -> None:
    """A process that trains at the same time as others."""
    step, _ = stepper(config_for(device, changes), split_named(dataset))
    for _ in range(10 if device == "cuda" else 1):
        step()
    ready.wait()
    rates.put(steps / seconds_of(step, steps, torch.device(device)))


def sharing(device: str, dataset: str, changes: dict[str, Any], steps: int, most: int) -> None:
    """Steps per second of all of 1, 2, 4, … trials on one device, a process each."""
    context = get_context("spawn")
    for count in (2**n for n in range(most.bit_length())):
        ready, rates = context.Barrier(count), context.Queue()
        given = (device, dataset, changes, steps, ready, rates)
        processes = [context.Process(target=one_of_many, args=given) for _ in range(count)]
        for process in processes:
            process.start()
        total = sum(rates.get(timeout=300) for _ in processes)
        for process in processes:
            process.join()
        print(f"{count} trials on one device: steps/s of all {total:.4g}", flush=True)


def quality(device: str, split: Split, epochs: int, seeds: int) -> None:
    """Validation NDCG@10 of the last epoch, by option."""
    for name, changes in VARIANTS.items():
        if device == "cpu" and "train.cuda_graph" in changes:
            continue
        scores = []
        for seed in range(seeds):
            config = config_for(device, changes | {"train.seed": seed, "train.max_epochs": epochs})
            *_, report = train(copy.deepcopy(config), split)
            scores.append(report.metrics["val/next/ndcg@10"])
        spread = statistics.stdev(scores) if seeds > 1 else 0.0
        print(f"{name}: val ndcg@10 {statistics.mean(scores):.4f} +- {spread:.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--dataset", default="ml-1m-shaped", help=DATASETS)
    parser.add_argument("--learn-from", default="ml-100k", help="for NDCG")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--trials", type=int, default=8, help="at most, on one device")
    parser.add_argument("--epochs", type=int, default=60, help="0: leave NDCG out")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("gpu.py: torch sees no GPU here; --device cpu runs the same on the CPU")
    device = torch.device(options.device)
    on = torch.cuda.get_device_name() if device.type == "cuda" else "the CPU"
    print(f"{options.dataset} on {on}, torch {torch.__version__}, batches of 128, P = N = 5")
    split = split_named(options.dataset)
    check(device, split)
    rates(device, split, options.steps)
    for changes in (PLAIN, GRAPH) if device.type == "cuda" else (PLAIN,):
        print(f"sharing, {changes or 'as it is'}")
        sharing(options.device, options.dataset, changes, options.steps, options.trials)
    if options.epochs:
        learnt = split_named(options.learn_from)
        quality(options.device, learnt, options.epochs, options.seeds)


if __name__ == "__main__":
    main()
