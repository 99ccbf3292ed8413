"""The same clip twice: a data set whose archives lie beside what was unpacked from them holds each clip in two places.

Copies have the same content and the same file name, machine type, section, domain and label. Clips that merely sound
alike are none: whoever published a test set with two names for one recording counts both.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_SAME = ["machine_type", "section", "domain", "label", "content_hash"]


def counted(scores: pa.Table) -> NDArray[np.bool_]:
    """Which rows of SCORES count: all but copies, of which the first by clip_id does. [N]

    All count where the table does not tell contents, as that of a submission folder.
    """
    chosen = np.ones(scores.num_rows, bool)
    if "content_hash" not in scores.column_names:
        return chosen
    order = pc.sort_indices(scores["clip_id"])
    names = pc.replace_substring_regex(scores["clip_id"], r"^.*/", "")
    keyed = scores.select(_SAME).append_column("name", names).append_column("place", pa.array(np.arange(len(chosen))))
    keyed = keyed.take(order).filter(pc.is_valid(keyed["content_hash"].take(order)))
    firsts = keyed.group_by([*_SAME, "name"], use_threads=False).aggregate([("place", "first")])["place_first"]
    chosen[keyed["place"].to_numpy()] = False
    chosen[firsts.to_numpy()] = True
    return chosen
