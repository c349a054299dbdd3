"""Order of images: per process, per epoch, balanced, resumed."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.data.dataset import derive_seed
from artifactnet.data.sampler import EpochSampler

labels_of = st.lists(st.integers(0, 1), min_size=1, max_size=60)


def batches(sampler):
    keys = list(sampler)
    assert len(keys) == len(sampler)
    size = sampler.batch_size
    return [keys[start : start + size] for start in range(0, len(keys), size)]


@given(
    labels=labels_of,
    batch=st.integers(1, 6),
    world=st.integers(1, 4),
    balance=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_joint_training_batches_are_those_of_one_process(labels, batch, world, balance, epoch):
    balance = balance and len(set(labels)) == 2
    common = dict(seed=5, shuffle=True, balance=balance)
    ranks = [
        EpochSampler(labels, batch_size=batch, rank=rank, world=world, **common)
        for rank in range(world)
    ]
    single = EpochSampler(labels, batch_size=batch * world, **common)
    for sampler in (*ranks, single):
        sampler.set_epoch(epoch)
    per_rank = [batches(sampler) for sampler in ranks]
    assert len({len(sampler) for sampler in ranks}) == 1
    expected = batches(single)
    assert {len(found) for found in per_rank} == {len(expected)}
    for step, joint in enumerate(expected):
        dealt = [found[step] for found in per_rank]
        interleaved = [key for keys in zip(*dealt, strict=True) for key in keys]
        assert interleaved[: len(joint)] == joint
        # Only an epoch smaller than one joint batch is topped up, by fewer than `world` images.
        assert len(interleaved) - len(joint) < world
        assert len(interleaved) == len(joint) or len(expected) == 1


def test_a_topped_up_image_is_a_repeat_and_not_the_same_key():
    ranks = [EpochSampler([0, 1, 1], batch_size=8, shuffle=True, rank=r, world=4) for r in range(4)]
    keys = [key for sampler in ranks for key in sampler]
    assert (len(set(keys)), Counter(key.repeat for key in keys)) == (4, {0: 3, 1: 1})


@given(labels=labels_of, batch=st.integers(1, 6), world=st.integers(1, 5))
def test_evaluation_sees_every_image_once_in_order(labels, batch, world):
    ranks = [
        list(EpochSampler(labels, batch_size=batch, rank=rank, world=world))
        for rank in range(world)
    ]
    assert sorted(key.item for keys in ranks for key in keys) == list(range(len(labels)))
    assert all(keys == sorted(keys) for keys in ranks)
    assert max(map(len, ranks)) - min(map(len, ranks)) <= 1


@given(labels=labels_of.filter(lambda labels: len(set(labels)) == 2), epoch=st.integers(0, 2))
def test_balance_repeats_the_rarer_class_in_whole_permutations(labels, epoch):
    sampler = EpochSampler(labels, batch_size=1, shuffle=True, balance=True, seed=3)
    sampler.set_epoch(epoch)
    keys = list(sampler)
    counts = Counter(labels[key.item] for key in keys)
    assert counts[0] == counts[1] == max(labels.count(0), labels.count(1))
    for label in (0, 1):
        times = Counter(key.item for key in keys if labels[key.item] == label)
        assert len(times) == labels.count(label)
        assert max(times.values()) - min(times.values()) <= 1
    # Repeats are numbered, so that each gets an augmentation of its own.
    assert len(set(keys)) == len(keys)
    times = Counter()
    for key in sorted(keys):
        assert key.repeat == times[key.item]
        times[key.item] += 1


def test_order_changes_with_epoch_and_seed_and_nothing_else():
    def order(seed, epoch):
        sampler = EpochSampler([0, 1] * 40, batch_size=4, shuffle=True, seed=seed)
        sampler.set_epoch(epoch)
        return [key.item for key in sampler]

    assert order(1, 2) == order(1, 2)
    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(a != b for a, b in itertools.combinations(orders, 2))
    assert all(sorted(found) == list(range(80)) for found in orders)


def test_an_iteration_keeps_the_epoch_it_began_with():
    sampler = EpochSampler([0, 1] * 5, batch_size=2, shuffle=True)
    keys = iter(sampler)
    first = next(keys)
    sampler.set_epoch(9)
    assert ({first.epoch, *(key.epoch for key in keys)}, next(iter(sampler)).epoch) == ({0}, 9)


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        ([], {}),
        ([0, 1], {"batch_size": 0}),
        ([0, 1], {"rank": 2, "world": 2}),
        ([1, 1], {"balance": True, "shuffle": True}),
        ([0, 1], {"balance": True}),
        ([0, 1], {"groups": ["a", "a"]}),
        ([0, 1], {"groups": ["a", "a"], "shuffle": True, "balance": True}),
        ([0, 1], {"groups": ["a"], "shuffle": True}),
    ],
)
def test_impossible_requests_are_refused(labels, options):
    with pytest.raises(ValueError):
        EpochSampler(labels, **{"batch_size": 1, **options})


def test_seeds_are_the_same_in_every_process_and_differ_by_every_part():
    assert derive_seed(1, 2, 3) == 2099825897  # written down by another process
    seeds = {derive_seed(*parts) for parts in itertools.product(range(-3, 9), repeat=3)}
    assert len(seeds) == 12**3
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert derive_seed(1, 23) != derive_seed(12, 3)


@given(
    names=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40),
    epoch=st.integers(0, 3),
    seed=st.integers(0, 5),
)
def test_groups_stand_together_and_every_image_comes_once(names, epoch, seed):
    sampler = EpochSampler([0] * len(names), batch_size=1, seed=seed, shuffle=True, groups=names)
    sampler.set_epoch(epoch)
    items = [key.item for key in sampler]
    assert sorted(items) == list(range(len(names)))
    runs = [name for name, _ in itertools.groupby(names[item] for item in items)]
    assert len(runs) == len(set(names))


def test_groups_are_shuffled_inside_and_among_each_other():
    names = [f"{i // 2:03d}" for i in range(200)]
    orders = []
    for epoch in range(2):
        sampler = EpochSampler([0] * 200, batch_size=1, shuffle=True, groups=names)
        sampler.set_epoch(epoch)
        orders.append([key.item for key in sampler])
    assert orders[0] != orders[1]
    first = [item % 2 for item in orders[0][::2]]
    assert 30 < sum(first) < 70
    assert orders[0][::2] != sorted(orders[0][::2])
