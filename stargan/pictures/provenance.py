"""What a result says of itself: that it is synthetic, and how it was made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree

from PIL import Image, PngImagePlugin

from stargan import __version__
from stargan.stages import stage


@dataclass(frozen=True)
class Provenance:
    """What a result says of itself.

    Attributes:
        model: name of the model that drew it.
        seed: of its style, where it had one.
        details: all else that it takes to make the picture again: domain, psi, …
        composite: True where a drawing was put back into a photo.
    """

    model: str
    seed: int | None = None
    details: dict[str, str] = field(default_factory=dict)
    composite: bool = False
    version: str = __version__

    def texts(self) -> dict[str, str]:
        """As :func:`read_provenance` finds it in a picture."""
        kind = "compositeWithTrainedAlgorithmicMedia" if self.composite else "trainedAlgorithmicMedia"
        seed = {} if self.seed is None else {"seed": str(self.seed)}
        made_by = {"Software": f"stargan {self.version}", "model": self.model}
        return made_by | seed | self.details | {"DigitalSourceType": _SOURCE_TYPE + kind}


# Pixels beyond which a PNG is packed fast.
FAST_PIXELS = 200_000
_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_XMP_KEY = "XML:com.adobe.xmp"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_META, _RDF = "adobe:ns:meta/", "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
for _prefix, _uri in (("x", _META), ("rdf", _RDF), ("Iptc4xmpExt", _IPTC)):
    ElementTree.register_namespace(_prefix, _uri)  # in all threads: once, and here


def save_picture(picture: Image.Image, path: str | Path | BinaryIO, provenance: Provenance, kind: str = "PNG") -> None:
    """Writes a picture that says that it is synthetic (IPTC ``DigitalSourceType``, as XMP) and how it was made, no more.

    Args:
        kind: "PNG"; or "WEBP" for what is looked at for a moment, which loses some and says no more than that it is synthetic.
    """
    facts = provenance.texts()
    packet = _xmp(facts.pop("DigitalSourceType"))
    clean = Image.new(picture.mode, picture.size)  # Pillow would write what the source's ``info`` holds: profiles, EXIF
    clean.paste(picture)
    with stage("write"):
        if kind == "WEBP":
            clean.save(path, format="WEBP", quality=88, method=2, xmp=packet.encode())
            return
        info = PngImagePlugin.PngInfo()
        info.add_itxt(_XMP_KEY, packet)
        for name, value in facts.items():
            info.add_itxt(name, value)
        clean.save(path, format="PNG", pnginfo=info, compress_level=compress_level(picture))


def compress_level(picture: Image.Image) -> int:
    """Of its PNG: of a large photo, a file a tenth smaller is not worth four times the seconds."""
    return 1 if picture.width * picture.height > FAST_PIXELS else 6


def _xmp(source_type: str) -> str:
    # built by name, so that no value can break the XML
    packet = ElementTree.Element(f"{{{_META}}}xmpmeta")
    about = ElementTree.SubElement(ElementTree.SubElement(packet, f"{{{_RDF}}}RDF"), f"{{{_RDF}}}Description")
    about.set(f"{{{_RDF}}}about", "")
    ElementTree.SubElement(about, f"{{{_IPTC}}}DigitalSourceType").text = source_type
    return ElementTree.tostring(packet, encoding="unicode")


def read_provenance(path: str | Path | BinaryIO) -> dict[str, str]:
    """What :func:`save_picture` wrote: its texts by name, and ``DigitalSourceType``. Empty for other pictures."""
    with Image.open(path) as picture:
        texts = {name: str(value) for name, value in getattr(picture, "text", {}).items()}
        packet = texts.pop(_XMP_KEY, None) or picture.info.get("xmp")
    if packet is not None:
        found = ElementTree.fromstring(packet).find(f".//{{{_IPTC}}}DigitalSourceType")
        if found is not None and found.text:
            texts["DigitalSourceType"] = found.text
    return texts
