"""Where things lie: the layout of Θ and the planner of the workspace, at any sizes and lifetimes."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpunn.arena import ALIGNMENT, Layout, Plan, Window, lay_out, plan_workspace

quick = settings(max_examples=60, deadline=None)


def room(nbytes):
    """The bytes that a slot takes in the workspace."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


# ------------------------------------------------------------------ Θ

shapes = st.lists(st.integers(0, 40), max_size=3).map(tuple)
keys = st.sampled_from([f"layers.{i}.{name}" for i in range(4) for name in ("bias", "weights")])
parameters = st.dictionaries(keys, st.tuples(shapes, st.booleans()), max_size=8)
itemsizes = st.sampled_from([2, 4, 8, 16])


@quick
@given(parameters, itemsizes)
def test_every_window_starts_at_a_multiple_of_256_bytes(parameters, itemsize):
    layout = lay_out(parameters, itemsize)
    assert {window.offset * itemsize % ALIGNMENT for window in layout.windows.values()} <= {0}
    assert layout.size * itemsize % ALIGNMENT == 0


@quick
@given(parameters, itemsizes)
def test_no_two_windows_share_elements_and_all_lie_in_theta(parameters, itemsize):
    layout = lay_out(parameters, itemsize)
    filled = sorted((w.offset, w.offset + w.size) for w in layout.windows.values() if w.size)
    ends = [0, *(end for _, end in filled)]
    assert all(end <= start for end, (start, _) in zip(ends, filled, strict=False))
    assert ends[-1] <= layout.size


@quick
@given(parameters, itemsizes)
def test_the_windows_have_the_shapes_and_the_order_of_the_parameters(parameters, itemsize):
    layout = lay_out(parameters, itemsize)
    assert [(key, window.shape) for key, window in layout.windows.items()] == [
        (key, shape) for key, (shape, _) in parameters.items()
    ]
    assert layout.count == sum(math.prod(shape) for shape, _ in parameters.values())


@quick
@given(parameters, itemsizes)
def test_the_weights_come_first_and_no_bias_among_them(parameters, itemsize):
    layout = lay_out(parameters, itemsize)
    wrong = [
        key
        for key, (shape, is_weight) in parameters.items()
        if math.prod(shape) and (layout.windows[key].offset < layout.weights) is not is_weight
    ]
    assert wrong == []


@quick
@given(parameters, itemsizes)
def test_a_window_is_padded_by_less_than_256_bytes(parameters, itemsize):
    layout = lay_out(parameters, itemsize)
    needed = sum(room(math.prod(shape) * itemsize) for shape, _ in parameters.values())
    assert layout.size * itemsize == needed


def test_a_theta_of_nothing_is_empty():
    assert lay_out({}, 4) == Layout({}, 0, 0)


def test_a_scalar_has_a_window_of_one_element():
    assert lay_out({"s": ((), False)}, 8) == Layout({"s": Window(0, ())}, 32, 0)


def test_an_item_larger_than_a_line_still_has_a_place():
    assert lay_out({"a": ((3,), True), "b": ((2,), True)}, 512).windows["b"].offset == 3


# ------------------------------------------------------------------ the workspace


@st.composite
def slot_lists(draw):
    """Slots of any size, alive from one op to another; −1 is before the first."""
    sizes = st.one_of(st.integers(0, 8).map(ALIGNMENT.__mul__), st.integers(0, 2500))
    lives = st.tuples(st.integers(-1, 6), st.integers(0, 3))
    drawn = draw(st.lists(st.tuples(sizes, lives), max_size=20))
    return [(f"slot {i}", nbytes, first, first + ops) for i, (nbytes, (first, ops)) in enumerate(drawn)]


def peak(slots):
    """The bytes that are alive at the busiest moment: no plan needs fewer."""
    moments = {moment for _, _, first, last in slots for moment in (first, last)}
    return max(
        (sum(room(n) for _, n, first, last in slots if first <= moment <= last) for moment in moments),
        default=0,
    )


def clashes(slots, plan):
    """The pairs of slots that are alive together and share bytes."""
    return [
        (one[0], other[0])
        for one, other in itertools.combinations(slots, 2)
        if one[2] <= other[3]
        and other[2] <= one[3]
        and plan.offsets[one[0]] < plan.offsets[other[0]] + other[1]
        and plan.offsets[other[0]] < plan.offsets[one[0]] + one[1]
    ]


@quick
@given(slot_lists())
def test_no_two_slots_that_are_alive_together_share_bytes(slots):
    assert clashes(slots, plan_workspace(slots)) == []


@quick
@given(slot_lists())
def test_every_slot_lies_aligned_within_the_workspace(slots):
    plan = plan_workspace(slots)
    assert plan.offsets.keys() == {name for name, *_ in slots}
    assert {at % ALIGNMENT for at in plan.offsets.values()} <= {0}
    assert plan.nbytes == max((plan.offsets[name] + room(n) for name, n, *_ in slots), default=0)


@quick
@given(slot_lists())
def test_the_workspace_is_at_least_what_is_alive_at_once_and_at_most_all_slots(slots):
    assert peak(slots) <= plan_workspace(slots).nbytes <= sum(room(n) for _, n, *_ in slots)


@quick
@given(slot_lists())
def test_slots_that_all_live_at_once_lie_side_by_side(slots):
    together = [(name, nbytes, 0, 9) for name, nbytes, *_ in slots]
    assert plan_workspace(together).nbytes == sum(room(n) for _, n, *_ in slots)


@quick
@given(slot_lists())
def test_slots_that_never_meet_share_one_place(slots):
    apart = [(name, nbytes, number, number) for number, (name, nbytes, *_) in enumerate(slots)]
    assert plan_workspace(apart).nbytes == max((room(n) for _, n, *_ in slots), default=0)


def chain(sizes):
    """Each slot is written by one op and read by the next, as in a deep network."""
    return [(f"a{i}", size, i, i + 1) for i, size in enumerate(sizes)]


sizes = st.lists(st.integers(1, 10_000), min_size=1, max_size=12)


@quick
@given(st.integers(1, 10_000), st.integers(1, 12))
def test_a_chain_of_equal_slots_needs_two_places(size, length):
    assert plan_workspace(chain([size] * length)).nbytes == min(length, 2) * room(size)


@quick
@given(sizes)
def test_a_chain_that_narrows_needs_no_more_than_is_alive_at_once(sizes):
    slots = chain(sorted(sizes, reverse=True))
    assert plan_workspace(slots).nbytes == peak(slots)


@quick
@given(st.sets(st.integers(1, 40), min_size=1, max_size=12))
def test_a_chain_that_widens_needs_no_more_than_is_alive_at_once(sizes):
    slots = chain([ALIGNMENT * size for size in sorted(sizes)])
    assert plan_workspace(slots).nbytes == peak(slots)


@quick
@given(sizes)
def test_a_chain_needs_at_most_the_three_largest_of_its_slots(sizes):
    assert plan_workspace(chain(sizes)).nbytes <= sum(sorted(map(room, sizes))[-3:])


@pytest.mark.parametrize("empty", [[("e", 0, 0, 5)], [("e", 0, 0, 5), ("f", 0, 2, 3)]])
def test_a_slot_of_nothing_takes_no_room(empty):
    others = chain([300, 300, 300])
    assert plan_workspace([*empty, *others]).nbytes == plan_workspace(others).nbytes == 1024


def test_a_workspace_without_slots_is_empty():
    assert plan_workspace([]) == Plan({}, 0)


def test_a_slot_that_ends_where_another_begins_does_not_give_it_its_place():
    """The op that reads the one writes the other."""
    plan = plan_workspace([("read", 256, 0, 1), ("written", 256, 1, 1)])
    assert sorted(plan.offsets.values()) == [0, 256]
