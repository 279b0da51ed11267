"""What a column of somebody else's table may be, by its name: for proposals in messages. Nothing is decided by it."""

import re
from collections.abc import Collection, Sequence

# Our name -> names that mean the same, in lower case without spaces and marks.
OTHER_NAMES = {
    "path": "file filename filepath image imagepath imagefile imagefilename imagename imageindex img imgpath imgname "
    "dicom dicompath dicomfile relativepath relpath fullpath",
    "class": "label labels classname classlabel diagnosis diagnoses finding findings findinglabels target category dx "
    "pathology pathologies groundtruth",
    "id": "imageid imageuid imgid uid sopinstanceuid dicomid",
    "patient": "patientid patients patientno patientnr patientnum patientnumber patientname patientuid patientkey "
    "patientcode patientidentifier patid ptid pid mrn subject subjectid subjectno subjectnr subjectnumber subjectname "
    "participant participantid person personid individual individualid paciente patientennummer patientenid",
    "split": "set fold subset partition datasplit phase usage",
    "view": "viewposition viewcode projection",
    "sex": "gender patientsex patientgender",
    "age": "patientage ageyears ageinyears ageyear ageatstudy ageatscan",
}
# What no label is called, whatever its cells hold.
NEVER_LABELS = ("patient", "sex", "age")
PEOPLE = re.compile("patient|subject|participant|paciente|mrn")


def plain(name: str) -> str:
    """A name in lower case without spaces and marks."""
    return re.sub(r"[\W_]", "", name.casefold())


def proposed(columns: Sequence[str], odd: Collection[str], taken: Collection[str]) -> dict[str, str]:
    """Our name -> the column that may be meant, for what no column was taken for yet.

    Args:
        columns: the columns that are not known, in the table's order.
        odd: those of them that cannot be labels, by what their cells hold.
        taken: our names that columns were taken for.
    """
    found: dict[str, str] = {}
    for ours, names in OTHER_NAMES.items():
        if ours not in taken:
            sure = [each for each in columns if plain(each) == ours]
            rather = [
                each for each in columns if plain(each) in names.split() and (each in odd or ours in NEVER_LABELS)
            ]
            found |= {ours: (sure + rather)[0]} if sure or rather else {}
    if "patient" not in taken and "patient" not in found:
        people = [each for each in odd if PEOPLE.search(plain(each)) and each not in found.values()]
        found |= {"patient": people[0]} if people else {}
    return found
