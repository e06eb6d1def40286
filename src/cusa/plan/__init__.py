"""The plan of a configuration: the runs, files and checks that the workflow's rules and `cusa check` need."""

from cusa.plan.changed_images import ChangedImages, find_changed_images
from cusa.plan.lost_files import lost_features, lost_gallery_files
from cusa.plan.named_inputs import require_plain_names
from cusa.plan.plan import VARIANTS, Plan
from cusa.plan.search import SearchPlan
from cusa.plan.student_inputs import StudentInputsPlan
from cusa.plan.sweep import SweepPlan

__all__ = [
    "VARIANTS",
    "ChangedImages",
    "Plan",
    "SearchPlan",
    "StudentInputsPlan",
    "SweepPlan",
    "find_changed_images",
    "lost_features",
    "lost_gallery_files",
    "require_plain_names",
]
