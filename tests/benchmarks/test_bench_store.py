"""A moment of each of the store's calls, so that none of them rots. Nothing here judges a time."""

from benchmarks import bench_store


def test_store_calls_tiny_run_measures_each(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_store, "ROUNDS", 2)
    with bench_store.store_at(str(tmp_path / "s.db")) as store:
        results = bench_store.measure(bench_store.Fleet(store, 3))
    assert bench_store.TARGET_MS.keys() <= results.keys()
    assert all(result["median_ms"] >= 0 for result in results.values())
