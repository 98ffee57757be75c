"""Blocks under one limit, chains of them, slabs: what is put in comes out, and at the limit nothing grows."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spokes._fastpath.hooks.base_hooks import BLOCK_SIZE, SPARE_COUNT_MAX, ChainHook, slab_addresses


def test_chain_at_the_limit_takes_no_more_and_keeps_what_it_has():
    chain = ChainHook(2)
    data = bytes(range(256)) * (3 * BLOCK_SIZE // 256)
    assert chain.append(data) == 2 * BLOCK_SIZE
    assert chain.append(b"more") == 0
    assert chain.is_full
    assert chain.copy(len(data)) == data[: 2 * BLOCK_SIZE]


def test_chain_forced_goes_beyond_the_limit():
    chain = ChainHook(1)
    assert chain.append(bytes(3 * BLOCK_SIZE), force=True) == 3 * BLOCK_SIZE
    assert chain.used_blocks == 3
    chain.drop(2 * BLOCK_SIZE)
    assert chain.append(b"x") == 0, "the limit still holds for everybody else"


def test_chain_dropped_gives_its_blocks_back():
    chain = ChainHook(4)
    chain.append(bytes(3 * BLOCK_SIZE + 1))
    chain.drop(3 * BLOCK_SIZE)
    assert (chain.used_blocks, chain.byte_count) == (1, 1)
    chain.drop(5)
    assert (chain.used_blocks, chain.byte_count) == (0, 0)


def test_chain_cleared_is_empty_and_usable():
    chain = ChainHook(4)
    chain.append(bytes(BLOCK_SIZE + 1))
    chain.clear()
    assert (chain.used_blocks, chain.byte_count, chain.copy(1)) == (0, 0, b"")
    chain.append(b"again")
    assert chain.copy(10) == b"again"


def test_pool_keeps_a_bounded_number_of_spare_blocks():
    chain = ChainHook(SPARE_COUNT_MAX + 50)
    chain.append(bytes((SPARE_COUNT_MAX + 50) * BLOCK_SIZE))
    chain.clear()
    assert chain.spare_blocks == SPARE_COUNT_MAX
    assert chain.used_blocks == 0


def test_chain_reserve_stays_in_one_block():
    chain = ChainHook(4)
    chain.append(bytes(BLOCK_SIZE - 4))
    chain.reserve(b"12345678")
    assert chain.parts(16) == [bytes(BLOCK_SIZE - 4), b"12345678"]
    assert len(chain.parts(1)) == 1


def test_pool_is_low_before_it_is_full():
    chain = ChainHook(100)
    assert not chain.is_low
    chain.append(bytes(40 * BLOCK_SIZE))
    assert chain.is_low
    assert not chain.is_full


def test_pool_promises_a_quarter_of_the_limit_and_nothing_when_half_is_used():
    chain = ChainHook(100)
    quarter = 25 * BLOCK_SIZE
    assert not chain.promise(quarter + 1)
    assert chain.promise(quarter)
    assert not chain.promise(1)
    chain.promise_end(quarter)
    chain.append(bytes(51 * BLOCK_SIZE))
    assert not chain.promise(1)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(0, 40000)),
            st.tuples(st.just("reserve"), st.integers(1, 300)),
            st.tuples(st.just("drop"), st.integers(0, 50000)),
        ),
        max_size=30,
    )
)
def test_chain_after_any_steps_holds_what_a_bytearray_would(steps):
    chain, model = ChainHook(1000), bytearray()
    for number, (verb, count) in enumerate(steps):
        data = bytes([number]) * count
        if verb == "append":
            assert chain.append(data) == count
            model += data
        elif verb == "reserve":
            chain.reserve(data)
            model += data
        else:
            chain.drop(count)
            del model[:count]
        assert chain.byte_count == len(model)
        assert chain.copy(len(model) + 1) == bytes(model)
    chain.clear()
    assert chain.used_blocks == 0


@pytest.mark.parametrize("object_bytes", [1, 16, 200])
def test_slab_objects_are_apart_and_zeroed_when_taken_again(object_bytes):
    first, second, is_zero = slab_addresses(object_bytes, 100)
    assert is_zero
    for addresses in (sorted(first), sorted(second)):
        assert all(later - earlier >= object_bytes for earlier, later in pairwise(addresses))
