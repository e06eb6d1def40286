"""Lost files: they were made and are gone, but the file beside them that later stages name as input still exists.

The inputs of jobs name the meta.json of features and galleries, which represents the arrays beside it. So the workflow
notices a lost array only if it asks for the array too.
"""

from __future__ import annotations

from pathlib import Path

from cusa.gallery.store import EMBEDDINGS, ITEMS
from cusa.gallery.store import META as GALLERY_META
from cusa.layout import META
from cusa.plan.plan import Plan
from cusa.plan.search import SearchPlan
from cusa.teachers.store import FEATURES, is_in_parts


def lost_features(plan: Plan) -> list[str]:
    """The arrays of cached features that are gone. Parts of features that are only listed have their own jobs."""
    folders = [folder.features(*features) for folder, features in plan.stored_features]
    lost = [folder for folder in folders if (folder / META).is_file() and not (folder / FEATURES).is_file()]
    return sorted(str(folder / FEATURES) for folder in lost if not is_in_parts(folder))


def lost_gallery_files(search: SearchPlan) -> list[str]:
    """The files of galleries that are searched, and are gone."""
    galleries = [Path(index).parents[1] / "gallery" / search.gallery for index in search.index_folders()]
    there = [gallery for gallery in galleries if (gallery / GALLERY_META).is_file()]
    files = [gallery / name for gallery in there for name in (EMBEDDINGS, ITEMS)]
    return [str(file) for file in files if not file.is_file()]
