"""The host shim finds each planted fault, and accepts the kernel beside it that has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cuda_host import BuildError, HostDriver, KernelFault
from cuda_host.build import compiler

pytestmark = [
    pytest.mark.cuda_host,
    pytest.mark.skipif(compiler() is None, reason="cuda_host: neither g++ nor $CXX is installed"),
]

FAULTY = Path(__file__).parent / "cuda_host" / "faulty"
SANITIZED = ["read_at", "write_at", "twice<float>", "shared_at", "reduce<double>", "write_then_read<false>"]
#: How many bytes a thread writes at once.
TYPES = {"char": 1, "short": 2, "float": 4, "double": 8, "Pair": 16, "Many": 32}
INSTANCES = {
    "barriers.cu": [
        *[f"{name}<{wait}>" for name in ("write_then_read", "read_then_write") for wait in ("true", "false")],
        *["exchange_in_warp<true>", "exchange_in_warp<false>", "barrier_in_branch", "uniform_branch"],
        *["early_return", "late_return", "two_lines", "shuffle_with_ended_lane", "shuffle_of_half"],
        *["shuffle_from_outside", "foreign_mask", "votes", "shuffles", "reduce<float>", "reduce<double>"],
    ],
    "memory.cu": [
        *[
            "twice<float>",
            "twice<double>",
            "write_at",
            "read_at",
            "write_input",
            "uninitialised",
            "shared_at",
        ],
        *["shared_index", "forever", "waits_forever", "vector_at", "address", "float_sum", "whole_sum"],
        *["last_ticket", "scalars"],
    ],
    "races.cu": [
        *[
            f"{name}<{right}>"
            for name in (
                *["count_blocks", "mark_blocks", "count_threads", "count_in_argument", "start_and_add"],
                *["same_value", "tell_other_warp"],
            )
            for right in ("true", "false")
        ],
        *[f"write_in_turn<{T}, {wait}>" for T in TYPES for wait in ("true", "false")],
        *["read_and_write_in_warp", "largest", "sum_by_ticket", "order_of_blocks", "rounded"],
    ],
}


@pytest.fixture(scope="module")
def driver():
    with HostDriver(INSTANCES, sources=FAULTY, limit=0.5) as made:
        yield made


@pytest.fixture(scope="module")
def sanitizing():
    some = {file: [name for name in names if name in SANITIZED] for file, names in INSTANCES.items()}
    with HostDriver(some, sources=FAULTY, sanitize=True) as made:
        yield made


def numbers(count, dtype=np.float32):
    return np.arange(1, count + 1, dtype=dtype)


def fault_of(driver, expression, arguments, *, grid=(1,), block=(64,)):
    with pytest.raises(KernelFault) as caught:
        driver.launch(expression, grid, block, arguments)
    message = str(caught.value)
    assert message.startswith(expression + ": ")
    return message


def line_of(file, text):
    """Where a kernel file holds a text, as a fault names it."""
    lines = (FAULTY / file).read_text().splitlines()
    return f"{file}:{1 + next(number for number, line in enumerate(lines) if text in line)}"


@pytest.mark.parametrize(
    ("kernel", "first", "second", "declared", "line"),
    [
        ("write_then_read", 31, 32, "float all[256]", "all[threadIdx.x] = value"),
        ("read_then_write", 0, 1, "float all[256]", "all[threadIdx.x] = 2 * other"),
    ],
)
def test_missing_barrier_is_a_race(driver, kernel, first, second, declared, line):
    message = fault_of(driver, f"{kernel}<false>", [numbers(64)])
    threads = (
        f"thread ({first}, 0, 0) reads and thread ({second}, 0, 0) writes shared array all of barriers.cu:"
    )
    assert threads in message
    assert "without a barrier between" in message
    assert message.endswith("at " + line_of("barriers.cu", line))


def test_missing_barrier_changes_the_result_with_the_order(sanitizing):
    """Where no races are looked for."""
    message = fault_of(sanitizing, "write_then_read<false>", [numbers(64)])
    assert "the result depends on the order of threads" in message
    assert "argument 0, element 0" in message


def test_missing_warp_barrier_is_a_race(driver):
    message = fault_of(driver, "exchange_in_warp<false>", [numbers(32)], block=(32,))
    assert "thread (0, 0, 0) reads and thread (1, 0, 0) writes shared array all" in message


def test_barrier_after_write_is_accepted(driver):
    x = numbers(64)
    driver.launch("write_then_read<true>", (1,), (64,), [x])
    np.testing.assert_array_equal(x, numbers(64)[::-1])


def test_barrier_after_read_is_accepted(driver):
    x = numbers(64)
    driver.launch("read_then_write<true>", (1,), (64,), [x])
    np.testing.assert_array_equal(x, 3 * np.roll(numbers(64), -1))


def test_warp_barrier_is_accepted(driver):
    x = numbers(32)
    driver.launch("exchange_in_warp<true>", (1,), (32,), [x])
    np.testing.assert_array_equal(x, numbers(32).reshape(16, 2)[:, ::-1].ravel())


def test_barrier_in_a_divergent_branch_is_a_fault(driver):
    x = np.where(np.arange(32) < 16, np.float32(-1), np.float32(1))
    message = fault_of(driver, "barrier_in_branch", [x], block=(32,))
    assert "__syncthreads() at " + line_of("barriers.cu", "if (x[threadIdx.x] > 0) __syncthreads") in message
    assert "not reached by all threads of the block: 16 of 32 wait there" in message


@pytest.mark.parametrize("wait", [0, 1])
def test_barrier_in_a_uniform_branch_is_accepted(driver, wait):
    x = numbers(64)
    driver.launch("uniform_branch", (1,), (64,), [x, np.int32(wait)])
    np.testing.assert_array_equal(x, 1)


def test_return_before_a_barrier_is_a_fault(driver):
    message = fault_of(driver, "early_return", [numbers(64), np.int32(60)])
    assert "not reached by all threads of the block: 60 of 64 wait there" in message
    assert "thread (63, 0, 0) has ended" in message


def test_return_after_a_barrier_is_accepted(driver):
    x = np.zeros(60, np.float32)
    driver.launch("late_return", (1,), (64,), [x, np.int32(60)])
    assert x.all()


def test_two_barriers_that_meet_are_a_fault(driver):
    message = fault_of(driver, "two_lines", [numbers(64)])
    assert "threads meet at different barriers" in message
    assert "thread (32, 0, 0)" in message


def test_shuffle_with_an_ended_lane_is_a_fault(driver):
    message = fault_of(driver, "shuffle_with_ended_lane", [numbers(32), np.int32(31)], block=(32,))
    assert (
        "divergent __shfl_xor_sync at " + line_of("barriers.cu", "0xffffffffu, x[threadIdx.x], 1") in message
    )
    assert "lane 31 of the mask never comes, thread (31, 0, 0) has ended" in message


def test_shuffle_of_the_lanes_that_are_left_is_accepted(driver):
    x = numbers(16)
    driver.launch("shuffle_of_half", (1,), (32,), [x])
    np.testing.assert_array_equal(x, numbers(16).reshape(8, 2)[:, ::-1].ravel())


def test_shuffle_from_a_lane_outside_of_the_mask_gives_nan(driver):
    x = numbers(16)
    driver.launch("shuffle_from_outside", (1,), (32,), [x])
    assert np.isnan(x).all()


def test_mask_without_the_caller_is_a_fault(driver):
    assert "lacks the calling lane" in fault_of(driver, "foreign_mask", [numbers(32)], block=(32,))


def test_votes_count_each_warp_for_itself(driver):
    ballots, some, every = np.zeros(64, np.uint32), np.zeros(64, np.int32), np.zeros(64, np.int32)
    driver.launch("votes", (1,), (64,), [ballots, some, every])
    assert set(ballots) == {0xAAAAAAAA}
    np.testing.assert_array_equal(some.reshape(2, 32), [[0] * 32, [1] * 32])
    np.testing.assert_array_equal(every.reshape(2, 32), [[1] * 32, [0] * 32])


def test_shuffles_move_values_as_cuda_does(driver):
    from_three, down, up, quarters = (np.zeros(32, np.int32) for _ in range(4))
    driver.launch("shuffles", (1,), (32,), [from_three, down, up, quarters])
    np.testing.assert_array_equal(from_three, 3)
    np.testing.assert_array_equal(down, [*range(1, 32), 31])
    np.testing.assert_array_equal(up, [0, *range(31)])
    np.testing.assert_array_equal(quarters[:9], [1, 2, 3, 4, 5, 6, 7, 7, 9])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reduction_with_shuffles_gives_the_sum(driver, dtype):
    x, sums = numbers(1000, dtype), np.zeros(3, dtype)
    expression = {np.float32: "reduce<float>", np.float64: "reduce<double>"}[dtype]
    driver.launch(expression, (3,), (64,), [x, np.int64(1000), sums])
    assert sums.sum() == 1000 * 1001 / 2


@pytest.mark.parametrize(
    ("index", "where"), [(64, "0 bytes after its end"), (-1, "1 bytes before its start")]
)
def test_write_outside_of_an_array_is_a_fault(driver, index, where):
    message = fault_of(driver, "write_at", [numbers(64), np.int64(index)])
    assert f"wrote outside of its argument 0: {where}, at element {index}" in message
    assert "by block (0, 0, 0), thread (5, 0, 0)" in message


def test_write_inside_of_an_array_is_accepted(driver):
    x = numbers(64)
    driver.launch("write_at", (1,), (64,), [x, np.int64(63)])
    assert x[63] == 1


@pytest.mark.parametrize("index", [-1, 64])
def test_read_outside_of_an_array_changes_the_result(driver, index):
    message = fault_of(driver, "read_at", [numbers(64), np.int64(index), np.zeros(1, np.float32)])
    assert "the result depends on the bytes outside of its arguments" in message
    assert "argument 2, element 0 is nan in one run and 0.0462" in message


def test_what_was_read_outside_cannot_be_written_back_unseen(driver):
    message = fault_of(driver, "twice<float>", [numbers(64), numbers(64), np.int64(65)], block=(128,))
    assert "wrote outside of its argument 1" in message


@pytest.mark.parametrize("index", [-1, 63])
def test_sanitizer_finds_a_read_one_element_outside(sanitizing, index):
    x = np.zeros(128, np.float32)[8:71]
    message = fault_of(sanitizing, "read_at", [x, np.int64(index), np.zeros(1, np.float32)])
    assert "READ of size 4" in message
    assert line_of("memory.cu", "*y = x[i]") in message
    assert "block (0, 0, 0), thread (5, 0, 0)" in message


def test_sanitizer_finds_a_write_outside(sanitizing):
    message = fault_of(sanitizing, "write_at", [numbers(7), np.int64(7)])
    assert "WRITE of size 4" in message
    assert line_of("memory.cu", "x[i] = 1") in message


@pytest.mark.parametrize("index", [-1, 16])
def test_sanitizer_finds_an_access_outside_of_a_shared_array(sanitizing, index):
    message = fault_of(sanitizing, "shared_at", [numbers(1), np.int32(index)], block=(1,))
    assert line_of("memory.cu", "flat[i] = x[0]") in message


def test_sanitizer_accepts_kernels_without_fault(sanitizing):
    x, y, sums = numbers(99), np.zeros(99, np.float32), np.zeros(3)
    sanitizing.launch("twice<float>", (2,), (64,), [x, y, np.int64(99)])
    sanitizing.launch("reduce<double>", (3,), (64,), [numbers(1000, np.float64), np.int64(1000), sums])
    np.testing.assert_array_equal(y, 2 * x)
    assert sums.sum() == 1000 * 1001 / 2


def test_write_to_an_input_is_a_fault(driver):
    message = fault_of(driver, "write_input", [numbers(64)])
    assert "wrote to its input, argument 0, element 0 by block (0, 0, 0), thread (0, 0, 0)" in message


def test_uninitialised_shared_memory_changes_the_result(driver):
    message = fault_of(driver, "uninitialised", [np.zeros(32, np.float32)], block=(32,))
    assert "or in shared memory that nothing was written to: argument 0, element 1 is nan" in message


@pytest.mark.parametrize(
    ("index", "where"), [(16, "0 bytes after its end"), (-1, "1 bytes before its start")]
)
def test_write_outside_of_a_shared_array_is_a_fault(driver, index, where):
    message = fault_of(driver, "shared_at", [numbers(1), np.int32(index)], block=(1,))
    assert f"wrote outside of shared array matrix of {line_of('memory.cu', 'matrix[2]')}: {where}" in message


def test_write_inside_of_a_shared_array_is_accepted(driver):
    x = numbers(1)
    driver.launch("shared_at", (1,), (1,), [x, np.int32(15)])
    assert x[0] == 1


def test_shared_index_out_of_range_is_a_fault(driver):
    message = fault_of(driver, "shared_index", [numbers(1), np.int32(8)], block=(1,))
    assert "index 8 out of bounds for type 'float [8]'" in message
    assert line_of("memory.cu", "some[i] = x[0]") in message


def test_endless_loop_runs_past_the_limit(driver):
    message = fault_of(driver, "forever", [numbers(1)], block=(1,))
    assert "ran past 0.5 s, in block (0, 0, 0), thread (0, 0, 0)" in message
    assert "at memory.cu:" in message


def test_endless_wait_runs_past_the_limit(driver):
    assert "ran past 0.5 s" in fault_of(driver, "waits_forever", [np.zeros(1, np.int32)])


def test_null_pointer_crashes_with_its_line(driver):
    message = fault_of(driver, "write_at", [None, np.int64(0)])
    assert "died of SIGSEGV, in block (0, 0, 0), thread (5, 0, 0)" in message or "null pointer" in message
    assert line_of("memory.cu", "x[i] = 1") in message


def test_launch_after_a_fault_is_accepted(driver):
    fault_of(driver, "write_at", [None, np.int64(0)])
    x = numbers(8)
    driver.launch("write_at", (1,), (8,), [x, np.int64(7)])
    assert x[7] == 1


def test_misaligned_vector_is_a_fault(driver):
    message = fault_of(driver, "vector_at", [numbers(8)[1:], np.zeros(4, np.float32)], block=(1,))
    assert "misaligned address" in message


def test_float_sum_in_the_order_of_threads_is_a_fault(driver):
    message = fault_of(driver, "float_sum", [np.float32(1) / numbers(64), np.zeros(1, np.float32)])
    assert "the result depends on the order of threads" in message
    assert "argument 1, element 0 is 4.74" in message


def test_whole_sum_in_any_order_is_accepted(driver):
    total = np.zeros(1, np.int32)
    driver.launch("whole_sum", (1,), (64,), [numbers(64, np.int32), total])
    assert total[0] == 64 * 65 / 2


def test_result_that_depends_on_the_order_of_blocks_is_a_fault(driver):
    message = fault_of(driver, "order_of_blocks", [np.zeros(1, np.int32), np.zeros(4, np.int32)], grid=(4,))
    assert "argument 1, element 0 is 0 in ascending order and 3 in descending order" in message


def test_ticket_of_the_last_block_is_accepted(driver):
    tickets, blocks = np.zeros(1, np.int32), np.zeros(1, np.int32)
    driver.launch("last_ticket", (2, 3), (64,), [tickets, blocks])
    assert tickets[0] == 6


def test_two_blocks_that_add_without_an_atomic_are_a_fault(driver):
    message = fault_of(
        driver, "count_blocks<false>", [numbers(3, np.int32), np.zeros(2, np.int32)], grid=(3, 2)
    )
    assert "block (0, 0, 0) and block (1, 0, 0) both write argument 1, element 1 without an atomic" in message
    assert message.endswith("at " + line_of("races.cu", "counts[1] +="))


def test_block_is_named_in_each_dimension(driver):
    message = fault_of(driver, "mark_blocks<false>", [np.zeros(1, np.int8)], grid=(1, 3, 2))
    assert "block (0, 0, 0) and block (0, 1, 0) both write argument 0, element 0" in message


def test_two_blocks_that_add_by_atomics_are_accepted(driver):
    counts = np.zeros(2, np.int32)
    driver.launch("count_blocks<true>", (3, 2), (64,), [numbers(3, np.int32), counts])
    np.testing.assert_array_equal(counts, [0, 12])


def test_two_blocks_that_write_the_same_value_are_a_fault(driver):
    assert "both write argument 0" in fault_of(driver, "mark_blocks<false>", [np.ones(1, np.int8)], grid=(2,))


def test_blocks_that_write_neighbours_are_accepted(driver):
    marks = np.zeros(3, np.int8)
    driver.launch("mark_blocks<true>", (3,), (64,), [marks])
    assert marks.all()


@pytest.mark.parametrize(
    ("kernel", "place", "line"),
    [
        ("count_threads", "shared array found of races.cu:17", "else found +="),
        ("count_in_argument", "argument 1, element 0", "else *count +="),
    ],
)
def test_threads_that_add_without_an_atomic_are_a_fault(driver, kernel, place, line):
    message = fault_of(driver, f"{kernel}<false>", [numbers(64, np.int32), np.zeros(1, np.int32)])
    assert f"thread (0, 0, 0) writes and thread (1, 0, 0) reads {place} without a barrier between" in message
    assert message.endswith("at " + line_of("races.cu", line))


@pytest.mark.parametrize("kernel", ["count_threads", "count_in_argument"])
def test_threads_that_add_by_atomics_are_accepted(driver, kernel):
    count = np.zeros(1, np.int32)
    driver.launch(f"{kernel}<true>", (1,), (64,), [numbers(64, np.int32), count])
    assert count[0] == 32


def test_atomic_beside_a_plain_write_is_a_fault(driver):
    message = fault_of(driver, "start_and_add<false>", [numbers(64, np.int32), np.zeros(1, np.int32)])
    assert (
        "thread (0, 0, 0) writes and thread (1, 0, 0) updates by an atomic shared array found of" in message
    )
    assert line_of("races.cu", "atomicAdd(&found, x[threadIdx.x]);") in message


def test_atomic_after_a_plain_write_and_a_barrier_is_accepted(driver):
    count = np.zeros(1, np.int32)
    driver.launch("start_and_add<true>", (1,), (64,), [numbers(64, np.int32), count])
    assert count[0] == 64 * 65 / 2


@pytest.mark.parametrize(("name", "size"), TYPES.items())
def test_writes_of_every_size_are_watched(driver, name, size):
    message = fault_of(driver, f"write_in_turn<{name}, false>", [np.zeros(size, np.int8)])
    assert "thread (0, 0, 0) and thread (1, 0, 0) both write argument 0, element 0 without" in message
    driver.launch(f"write_in_turn<{name}, true>", (1,), (64,), [np.zeros(size, np.int8)])


def test_race_that_changes_no_value_is_a_fault(driver):
    ones, y = np.ones(64, np.int32), np.zeros(64, np.int32)
    assert "reads and thread" in fault_of(driver, "same_value<false>", [ones, y])
    driver.launch("same_value<true>", (1,), (64,), [ones, y])
    assert y.all()


def test_warp_barrier_orders_no_other_warp(driver):
    y = np.zeros(1, np.int32)
    message = fault_of(driver, "tell_other_warp<false>", [y])
    assert "thread (0, 0, 0) writes and thread (32, 0, 0) reads shared array told" in message
    driver.launch("tell_other_warp<true>", (1,), (64,), [y])
    assert y[0] == 7


def test_warp_barriers_order_each_lane_before_the_last(driver):
    y = np.zeros(32, np.int32)
    driver.launch("read_and_write_in_warp", (1,), (32,), [numbers(2, np.int32), y])
    np.testing.assert_array_equal(y, 3)


def test_compare_and_swap_by_all_is_accepted(driver):
    most = np.zeros(1, np.int32)
    driver.launch("largest", (1,), (64,), [numbers(64, np.int32), most])
    assert most[0] == 64


def test_sum_of_the_last_block_is_accepted(driver):
    total, tickets = np.zeros(1, np.int32), np.zeros(1, np.uint32)
    driver.launch("sum_by_ticket", (5,), (64,), [numbers(5, np.int32), np.zeros(5, np.int32), total, tickets])
    assert (total[0], tickets[0]) == (15, 0)


def test_launches_do_not_race_with_each_other(driver):
    marks = np.zeros(3, np.int8)
    for _ in range(3):
        driver.launch("mark_blocks<true>", (3,), (64,), [marks])
        driver.launch("mark_blocks<true>", (2,), (64,), [marks[1:]])


def test_products_and_sums_are_rounded_one_by_one(driver):
    single, twofold = np.ones(4, np.float32), np.ones(4)
    driver.launch("rounded", (1,), (1,), [np.float32(1 + 2**-12), np.float64(1 + 2**-27), single, twofold])
    np.testing.assert_array_equal(single, [0, 0, 2.0**-24, 2.0**-24])
    np.testing.assert_array_equal(twofold, [0, 0, 2.0**-54, 2.0**-54])


def test_missing_compiler_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiler.__wrapped__() is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([numbers(4), numbers(4)], "2 arguments for 3 parameters"),
        ([numbers(4), numbers(4), np.int32(4)], "argument 2 is a scalar of 4 bytes (int)"),
        ([numbers(4), numbers(4), np.float64(4)], "argument 2 is a scalar of 8 bytes (float)"),
        (
            [numbers(4), np.int64(0), np.int64(4)],
            "argument 1 is a scalar of 8 bytes, the parameter a pointer",
        ),
        ([numbers(4), numbers(4), None], "argument 2 is a null pointer, the parameter a scalar"),
        ([numbers(4), numbers(4), 4], "argument 2 is a int"),
        ([numbers(8)[::2], numbers(4), np.int64(4)], "argument 0 is not C-contiguous"),
    ],
)
def test_arguments_that_do_not_fit_are_named(driver, arguments, problem):
    assert problem in fault_of(driver, "twice<float>", arguments)


@pytest.mark.parametrize(
    ("grid", "block"), [((0,), (32,)), ((1,), (32, 64)), ((1,), (2048,)), ((1,) * 4, (1,))]
)
def test_impossible_launch_is_named(driver, grid, block):
    fault_of(driver, "twice<float>", [numbers(4), numbers(4), np.int64(4)], grid=grid, block=block)


def test_unknown_instance_is_named(driver):
    with pytest.raises(KernelFault, match=r"twice<int>: no such instance; there are .*twice<float>"):
        driver.launch("twice<int>", (1,), (1,), [])


def test_scalars_of_every_type_arrive(driver):
    total = np.zeros(1)
    scalars = [np.bool_(True), np.int32(-1), np.int64(2**40), np.float32(0.5), np.float64(0.25)]
    driver.launch("scalars", (1,), (1,), [*scalars, total])
    assert total[0] == 2**40 - 0.25


def test_in_place_launch_writes_the_one_array(driver):
    x = numbers(64)
    driver.launch("twice<float>", (1,), (64,), [x, x, np.int64(64)])
    np.testing.assert_array_equal(x, 2 * numbers(64))


def test_arrays_that_overlap_share_their_bytes(driver):
    x = numbers(12)
    driver.launch("twice<float>", (1,), (4,), [x[4:], x[:8], np.int64(4)])
    np.testing.assert_array_equal(x, [10, 12, 14, 16, *range(5, 13)])


def test_neighbours_in_memory_have_guards_of_their_own(driver):
    x = numbers(64)
    assert "argument 1: 0 bytes after" in fault_of(driver, "twice<float>", [x[32:], x[:16], np.int64(17)])


@pytest.mark.parametrize("shift", [0, 1, 3, 4, 63])
def test_address_keeps_its_rest_modulo_256(driver, shift):
    x, rest = np.zeros(100, np.float32)[shift:], np.zeros(1, np.uint64)
    driver.launch("address", (1,), (1,), [x, rest])
    assert rest[0] == x.ctypes.data % 256


def test_empty_arrays_are_accepted(driver):
    empty = np.zeros(0, np.float32)
    driver.launch("twice<float>", (1,), (64,), [empty, empty, np.int64(0)])


def test_write_to_an_empty_array_is_a_fault(driver):
    message = fault_of(driver, "twice<float>", [numbers(1), np.zeros(0, np.float32), np.int64(1)])
    assert "wrote outside of its argument 1" in message


def test_read_only_array_is_not_written(driver):
    x = numbers(4)
    x.flags.writeable = False
    assert "argument 0 is a read-only array" in fault_of(driver, "write_at", [x, np.int64(3)])
    assert x[3] == 4


def test_file_that_does_not_compile_shows_the_log():
    with pytest.raises(BuildError, match=r"broken\.cu does not compile:[\s\S]*broken\.cu:2:\d+: error:"):
        HostDriver({"broken.cu": ["broken"]}, sources=FAULTY)


def test_dynamic_shared_memory_is_refused():
    with pytest.raises(BuildError, match=r"dynamic\.cu:2: extern __shared__"):
        HostDriver({"dynamic.cu": ["dynamic"]}, sources=FAULTY)


def test_close_ends_the_processes():
    driver = HostDriver({"memory.cu": INSTANCES["memory.cu"]}, sources=FAULTY)
    driver.launch("write_at", (1,), (8,), [numbers(8), np.int64(7)])
    process = driver.children["memory.cu"].process
    driver.close()
    assert process.returncode is not None
