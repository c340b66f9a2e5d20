"""``AlgorithmContract``: what every advantage, loss and importance rule must hold; subclass it in three lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from m2rl_core.interfaces import Advantage, Importance, Loss
from m2rl_core.types import Prompt, Reward, Sample, Trajectory

if TYPE_CHECKING:
    from m2rl_core.types import Batch


class AlgorithmContract:
    """Checks of an advantage, a loss and, if there is one, an importance rule on small random samples.

    ::

        class TestMine(AlgorithmContract):
            advantage = MyAdvantage(MyAdvantage.Config())
            loss = MyLoss(MyLoss.Config())
            by_hand = {(1.0, 0.0): (0.5, -0.5)}
    """

    advantage: Advantage
    loss: Loss
    importance: Importance | None = None
    by_hand: ClassVar[Mapping[tuple[float, ...], tuple[float, ...]]] = {}
    """Rewards of a group → the advantage of each sample's first drawn token, worked out without the code."""

    @staticmethod
    def samples(rewards: tuple[float, ...] = (1.0, 0.0, 0.0, 1.0, 0.0)) -> list[Sample]:
        """A group of samples of different lengths with all optional scores filled in."""
        import torch

        generator = torch.Generator().manual_seed(7)
        prompt = Prompt("p", "d", ({"role": "user", "content": "?"},))
        made = []
        for i, reward in enumerate(rewards):
            length = 4 + 2 * i
            drawn = [False] * 2 + [True] * (length - 2)
            sample = Sample(
                prompt=prompt,
                index=i,
                ids_L=torch.randint(64, (length,), generator=generator).tolist(),
                sampled_L=drawn,
                logps_L=(-torch.rand(length, generator=generator) * torch.tensor(drawn)).tolist(),
                versions_L=[0 if d else -1 for d in drawn],
                trajectory=Trajectory(prompt, (), ""),
                finish="stop",
                reward=Reward(reward),
            )
            for name in ("old_logps_L", "reference_logps_L", "teacher_logps_L"):
                setattr(sample, name, -torch.rand(length, generator=generator) * torch.tensor(drawn))
            made.append(sample)
        return made

    def batch(self) -> Batch:
        """The trained tokens of :meth:`samples`, credited."""
        import torch

        from m2rl_core.packing import pack

        samples = self.samples()
        for sample, value in zip(samples, self.advantage(samples), strict=True):
            sample.advantage_L = value
        [batch] = pack(samples, 64, torch.device("cpu"))
        view = batch.take(torch.nonzero(batch.trained_T)[:, 0])
        generator = torch.Generator().manual_seed(1)
        view.entropy_T, view.divergence_T = torch.rand(2, len(view.ids_T), generator=generator)
        return view

    def test_advantages_have_the_samples_shapes(self) -> None:
        import torch

        samples = self.samples()
        for sample, value in zip(samples, self.advantage(samples), strict=True):
            assert value.shape == (len(sample.ids_L),)
            assert value.dtype == torch.float32
            assert bool(value.isfinite().all())

    def test_advantages_do_not_depend_on_the_order_of_samples(self) -> None:
        import torch

        samples = self.samples()
        forward, backward = self.advantage(samples), self.advantage(samples[::-1])
        for one, other in zip(forward, backward[::-1], strict=True):
            torch.testing.assert_close(one, other)

    def test_better_samples_get_no_smaller_advantage(self) -> None:
        samples = self.samples()
        mean = [value.mean().item() for value in self.advantage(samples)]
        right = min(m for m, s in zip(mean, samples, strict=True) if s.reward.value == 1.0)
        wrong = max(m for m, s in zip(mean, samples, strict=True) if s.reward.value == 0.0)
        assert right >= wrong

    def test_a_group_of_one_is_finite(self) -> None:
        [value] = self.advantage(self.samples((1.0,)))
        assert bool(value.isfinite().all())

    def test_advantages_are_those_worked_out_by_hand(self) -> None:
        for rewards, wanted in self.by_hand.items():
            samples = self.samples(rewards)
            found = [a[s.sampled_L.index(True)].item() for a, s in zip(self.advantage(samples), samples, strict=True)]
            assert all(abs(one - other) < 1e-5 for one, other in zip(found, wanted, strict=True)), (rewards, found)

    def test_losses_are_one_per_token_with_a_true_gradient(self) -> None:
        """Against central differences in float64."""
        import torch

        batch = self.batch()
        start = -torch.rand(len(batch.ids_T), generator=torch.Generator().manual_seed(2)) - 0.05
        logps = start.double().requires_grad_()
        loss = self.loss(logps, batch)
        assert loss.shape == (len(batch.ids_T),)
        [gradient] = torch.autograd.grad(loss.sum(), logps)
        step = 1e-6
        for t in range(len(start)):
            up, down = start.double(), start.double()
            up[t] += step
            down[t] -= step
            slope = (self.loss(up, batch).sum() - self.loss(down, batch).sum()) / (2 * step)
            torch.testing.assert_close(gradient[t], slope, rtol=1e-4, atol=1e-5)

    def test_a_vanishing_loss_vanishes(self) -> None:
        import torch

        batch = self.batch()
        batch.advantage_T = torch.zeros(len(batch.ids_T))
        logps = (-torch.rand(len(batch.ids_T), generator=torch.Generator().manual_seed(2))).requires_grad_()
        if not self.loss.vanishes:
            return
        loss = self.loss(logps, batch)
        [gradient] = torch.autograd.grad(loss.sum(), logps)
        assert not loss.any()
        assert not gradient.any()

    def test_a_separable_loss_is_the_same_in_chunks(self) -> None:
        import torch

        batch = self.batch()
        logps = -torch.rand(len(batch.ids_T), generator=torch.Generator().manual_seed(2))
        if not self.loss.separable:
            return
        whole = self.loss(logps, batch)
        thirds = torch.tensor_split(torch.arange(len(logps)), 3)
        parts = [self.loss(logps[part], batch.take(part)) for part in thirds]
        torch.testing.assert_close(torch.cat(parts), whole)

    def test_corrections_are_one_per_token_and_carry_no_gradient(self) -> None:
        import torch

        if self.importance is None:
            return
        batch = self.batch()
        found = self.importance(batch)
        for value, dtype in ((found.weight_T, torch.float32), (found.keep_T, torch.bool)):
            assert value.shape == (len(batch.ids_T),)
            assert value.dtype == dtype
            assert not value.requires_grad
        assert bool(found.weight_T.isfinite().all())
        assert bool((found.weight_T >= 0).all())
        assert all(isinstance(value, float) for value in found.metrics.values())

    def test_a_sampler_that_is_the_policy_needs_no_correction(self) -> None:
        import torch

        if self.importance is None:
            return
        batch = self.batch()
        batch.sampler_logps_T = batch.old_logps_T = batch.sampler_logps_T.clone()
        found = self.importance(batch)
        torch.testing.assert_close(found.weight_T, torch.ones(len(batch.ids_T)))
        assert bool(found.keep_T.all())
