"""In which order, and on which process, images are seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from artifactnet.data.dataset import SampleKey, derive_seed


class EpochSampler(Sampler[SampleKey]):
    """Keys of one process for one epoch.

    Positions are dealt out in turn (process r of W gets every W-th position, from the r-th): batch
    s of all processes together is batch s of a single process whose batch is W times as large, so a
    distributed run takes the same steps.

    Args:
        labels: 0 real, 1 fake, one per image of the split.
        batch_size: images per batch and process.
        seed: of the run.
        shuffle: training: a new order each epoch; every process has the same number of batches;
            what does not fill a last joint batch is dropped, unless that would drop everything, in
            which case the one short batch is kept, topped up from its own start until all processes
            have equally many images. Else evaluation: the fixed order of the source, every image
            once; the processes' lengths differ by at most one image, and a process may have none.
        balance: as many real as fake images per epoch: the rarer class is repeated, in whole
            permutations, up to the size of the other. Needs ``shuffle``.
        groups: one name per image (its uid): images of one name follow each other, in random order,
            so that a photograph and its fakes meet in one batch. Needs ``shuffle``, no ``balance``.
        rank, world: this process, from 0, of how many.

    Raises:
        ValueError: numbers out of range, no image, or an option without what it needs.
    """

    def __init__(
        self,
        labels: Sequence[int],
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
        balance: bool = False,
        groups: Sequence[str] | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size < 1 or not 0 <= rank < world:
            raise ValueError(f"bad batch_size={batch_size}, rank={rank}, world={world}")
        if len(labels) == 0:
            raise ValueError("there is no image to sample from")
        if balance and (not shuffle or len(set(labels)) != 2):
            raise ValueError("balance needs shuffle and both classes")
        if groups is not None and (not shuffle or balance or len(groups) != len(labels)):
            raise ValueError("groups need shuffle, no balance, and one name per image")
        self.labels = np.asarray(labels)
        self._group = None if groups is None else np.unique(list(groups), return_inverse=True)[1]
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.balance = balance
        self.rank = rank
        self.world = world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration yields (Lightning calls it too)."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(range(self.rank, self._positions(), self.world))

    def __iter__(self) -> Iterator[SampleKey]:
        epoch = self.epoch  # kept: the loader reads ahead, maybe beyond the next `set_epoch`
        indices, repeats = self._order()
        for position in range(self.rank, self._positions(), self.world):
            lap, at = divmod(position, len(indices))
            yield SampleKey(epoch, int(indices[at]), int(repeats[at]) + lap)

    def _positions(self) -> int:
        """Number of images that all processes together see in an epoch."""
        count = len(self.labels)
        if not self.shuffle:
            return count
        if self.balance:
            count = 2 * int(np.bincount(self.labels).max())
        joint = self.batch_size * self.world
        return count - count % joint if count >= joint else -(-count // self.world) * self.world

    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        """Image indices of the whole epoch, and how often each came before."""
        if not self.shuffle:
            return np.arange(len(self.labels)), np.zeros(len(self.labels), int)
        rng = np.random.default_rng(derive_seed(self.seed, self.epoch))
        if not self.balance:
            order = rng.permutation(len(self.labels))
            if self._group is not None:
                place = rng.permutation(self._group.max() + 1)
                order = order[np.argsort(place[self._group[order]], kind="stable")]
            return order, np.zeros(len(self.labels), int)
        classes = [np.flatnonzero(self.labels == label) for label in (0, 1)]
        size = max(len(members) for members in classes)
        indices, repeats = [], []
        for members in classes:
            laps = -(-size // len(members))
            indices += [np.concatenate([rng.permutation(members) for _ in range(laps)])[:size]]
            repeats += [np.repeat(np.arange(laps), len(members))[:size]]
        mixed = rng.permutation(2 * size)
        return np.concatenate(indices)[mixed], np.concatenate(repeats)[mixed]
