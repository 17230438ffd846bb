"""What the diagnostic keywords of ODIR-5K mean: the class of each, for one eye at a time.

The data's eight marks (N, D, G, C, A, H, M, O) are of the patient, both eyes together; the keywords
are of an eye. Keywords are compared in small letters, with single spaces, `non proliferative` as
one word, and without `suspected` or `suspicious` before them: a suspicion counts as the finding.
"""

from __future__ import annotations

import re

CLASSES = ("N", "D", "G", "C", "A", "H", "M", "O")
NORMAL = "normal fundus"
OF_CLASS = {
    "D": (
        "diabetic retinopathy", "mild nonproliferative retinopathy",
        "moderate nonproliferative retinopathy", "proliferative diabetic retinopathy",
        "severe nonproliferative retinopathy", "severe proliferative diabetic retinopathy",
    ),
    "G": ("glaucoma",),
    "C": ("cataract",),
    "A": (
        "age-related macular degeneration", "dry age-related macular degeneration",
        "wet age-related macular degeneration",
    ),
    "H": ("hypertensive retinopathy",),
    "M": ("myopia retinopathy", "myopic maculopathy", "myopic retinopathy", "pathological myopia"),
    "O": (
        "abnormal color of optic disc", "abnormal pigment", "arteriosclerosis",
        "asteroid hyalosis", "atrophic change", "atrophy", "branch retinal artery occlusion",
        "branch retinal vein occlusion", "central retinal artery occlusion",
        "central retinal vein occlusion", "central serous chorioretinopathy",
        "chorioretinal atrophy", "chorioretinal atrophy with pigmentation proliferation",
        "choroidal nevus", "congenital choroidal coloboma",
        "depigmentation of the retinal pigment epithelium", "diffuse chorioretinal atrophy",
        "diffuse retinal atrophy", "drusen", "epiretinal membrane",
        "epiretinal membrane over the macula", "fundus laser photocoagulation spots",
        "glial remnants anterior to the optic disc", "idiopathic choroidal neovascularization",
        "intraretinal hemorrhage", "intraretinal microvascular abnormality", "laser spot",
        "macular coloboma", "macular epimacular membrane", "macular epiretinal membrane",
        "macular hole", "macular pigmentation disorder", "maculopathy",
        "microvascular anomalies", "morning glory syndrome", "myelinated nerve fibers",
        "old branch retinal vein occlusion", "old central retinal vein occlusion",
        "old chorioretinopathy", "old choroiditis", "optic disc edema", "optic discitis",
        "optic disk epiretinal membrane", "optic nerve atrophy", "oval yellow-white atrophy",
        "peripapillary atrophy", "pigment epithelium proliferation", "pigmentation disorder",
        "post laser photocoagulation", "post retinal laser surgery",
        "punctate inner choroidopathy", "refractive media opacity", "retina fold",
        "retinal artery macroaneurysm", "retinal detachment", "retinal pigment epithelial "
        "hypertrophy", "retinal pigment epithelium atrophy", "retinal pigmentation",
        "retinal vascular sheathing", "retinitis pigmentosa", "retinochoroidal coloboma",
        "rhegmatogenous retinal detachment", "silicone oil eye", "spotted membranous change",
        "tessellated fundus", "vascular loops", "vessel tortuosity", "vitreous degeneration",
        "vitreous opacity", "wedge white line change", "wedge-shaped change", "white vessel",
    ),
}  # fmt: skip
# of the photograph, not of the eye: they say nothing about disease
POOR = frozenset({"image offset", "lens dust", "low image quality",
                  "optic disk photographically invisible"})  # fmt: skip
NO_FUNDUS = frozenset({"anterior segment image", "no fundus image"})
CLASS_OF = {keyword: name for name, keywords in OF_CLASS.items() for keyword in keywords}

_BETWEEN = re.compile("[,\uff0c;\uff1b\u3001]")  # commas and semicolons, Chinese ones too
_DOUBT = re.compile("^(suspected|suspicious) ")


def keywords_of(text: str) -> list[str]:
    """The keywords of one eye, as they are compared."""
    found = (" ".join(piece.lower().split()) for piece in _BETWEEN.split(text))
    plain = (re.sub(r"\bnon[ -]proliferative\b", "nonproliferative", piece) for piece in found)
    return [_DOUBT.sub("", piece) for piece in plain if piece]


def diseases_of(keywords: list[str]) -> set[str]:
    """The classes but N that one eye shows; a keyword that nobody knows is O."""
    silent = {NORMAL, *POOR, *NO_FUNDUS}
    return {CLASS_OF.get(keyword, "O") for keyword in keywords if keyword not in silent}


def is_known(keyword: str) -> bool:
    """Whether the keyword is one of those above."""
    return keyword in CLASS_OF or keyword in {NORMAL, *POOR, *NO_FUNDUS}
