"""Device profiles under the names of the logs: a model nobody measured has its match's speed."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from simulation.fitting.population import ModelMatch
from simulation.portable_math import portable_exp
from simulation.traces.device_profiles import DeviceProfiles


def matched_profiles(profiles: DeviceProfiles, matches: Sequence[ModelMatch]) -> pa.Table:
    """The measured profiles, and one more for each matched model of the logs.

    A trace that names device models needs a profile of each. Unmatched models get none: a dry-run
    on such a trace is refused, with the model's name.

    Returns:
        ``device_model, per_example_s`` (a row a sample) or ``device_model, mean_s, stdev_s``, as
        the profiles were measured; sorted by model.
    """
    stands_for = {name: name for name in profiles.device_models}
    stands_for |= {
        match.log_model: match.device_model for match in matches if match.device_model is not None
    }
    names = sorted(stands_for)
    code = {name: at for at, name in enumerate(profiles.device_models)}
    model = np.array([code[stands_for[name]] for name in names])
    if len(profiles.samples_s):
        first, beyond = profiles.offsets[model], profiles.offsets[model + 1]
        samples = [profiles.samples_s[a:b] for a, b in zip(first, beyond, strict=True)]
        repeated = np.repeat(np.array(names, dtype=object), beyond - first)
        return pa.table(
            {
                "device_model": pa.array(repeated, pa.string()),
                "per_example_s": np.concatenate(samples),
            }
        )
    # A lognormal of median m and deviation s of its logarithm has mean m * exp(s ** 2 / 2).
    variance = profiles.log_stdev[model] ** 2
    mean_s = profiles.median_s[model] * portable_exp(variance / 2)
    stdev_s = mean_s * np.sqrt(np.maximum(portable_exp(variance) - 1.0, 0.0))
    return pa.table({"device_model": names, "mean_s": mean_s, "stdev_s": stdev_s})
