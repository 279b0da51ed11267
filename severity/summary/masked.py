"""What stands over the numbers where decisions are for labels whose truth is masked: how many are left out, and how much
that can change."""

from collections.abc import Mapping

from severity.core.runs import Run
from severity.metrics import catalogue
from severity.metrics.record import Record

ERROR = catalogue.named("top1_error")


def remark(records: Mapping[Run, Record]) -> str:
    """One sentence for a study with such decisions; '' where every decision is right or wrong."""
    each = [
        (rule["masked"]["images"] / (rule["images"] + rule["undetermined"]), rule["masked"][ERROR.name], name, run.name)
        for run, record in records.items()
        for name, rule in record["rules"].items()
    ]
    shares = [share for share, *_ in each]
    if not any(shares):
        return ""
    _, (least, largest), rule, run = max(each, key=lambda one: one[1][1] - one[1][0])
    ends = f"{min(shares):.1%} to {max(shares):.1%}" if min(shares) < max(shares) else f"{max(shares):.1%}"
    return (
        f"{ends} of the decisions are for a label whose truth is masked: neither right nor wrong, and left out. Over all "
        f"images the {ERROR.heading} may be anything between the bounds in metrics/runs (masked), at the widest {least:.3f} to "
        f"{largest:.3f} ({run}, {rule})."
    )
