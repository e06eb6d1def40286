"""Results of benchmarks, as their JSON files have them."""

from __future__ import annotations


def result(experiment, seed, benchmark="itr", **metrics):
    return {
        "benchmark": benchmark,
        "dataset": "d",
        "experiment": experiment,
        "seed": seed,
        "metrics": metrics,
        "protocol": "p",
        "n_queries": 10,
        "n_gallery": 5,
    }


RESULTS = [
    result("contrastive", 1, t2i_r1=10.0, i2t_median_rank=4.0),
    result("contrastive", 2, t2i_r1=14.0, i2t_median_rank=4.0),
    result("cusa", 1, t2i_r1=20.0, i2t_median_rank=2.0),
    result("cusa", 2, t2i_r1=20.0, i2t_median_rank=3.0),
    result("cusa", 1, benchmark="sts", spearman=50.0),
]
