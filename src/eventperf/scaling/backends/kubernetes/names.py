"""Names and quantities of Kubernetes: ``deployment/web``, ``250m``, ``1.5Gi``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from eventperf._core.errors import ConfigurationError

_KINDS = {
    name: f"{plural}.v1.apps"
    for plural, names in {
        "deployments": ("deployment", "deployments", "deploy"),
        "statefulsets": ("statefulset", "statefulsets", "sts"),
        "replicasets": ("replicaset", "replicasets", "rs"),
    }.items()
    for name in names
}
_KIND_NAMES = {"deployments": "Deployment", "statefulsets": "StatefulSet", "replicasets": "ReplicaSet"}
_SUFFIX = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reference:
    """One object with a scale subresource.

    Attributes:
        version: Empty when it must be asked of the server first.
    """

    group: str
    version: str
    plural: str
    name: str

    @property
    def kind(self) -> str:
        """The kind's name where it is a built-in one, else the plural (Events carry it)."""
        return _KIND_NAMES.get(self.plural, self.plural) if self.group == "apps" else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}"


@lru_cache(maxsize=16384)
def parse_reference(text: str) -> Reference:
    """Return what ``kind/name`` names.

    Args:
        text: ``deployment/web``, ``statefulset/db``, or for any kind with a scale subresource
            ``plural.group/name`` or ``plural.version.group/name``, as kubectl writes it.

    Raises:
        ConfigurationError: Not such a text.

    >>> parse_reference("deployment/web")
    Reference(group='apps', version='v1', plural='deployments', name='web')
    >>> parse_reference("rollouts.v1alpha1.argoproj.io/web").group
    'argoproj.io'
    """
    kind, slash, name = text.partition("/")
    full = _KINDS.get(kind.lower(), kind)
    plural, _, rest = full.partition(".")
    if not slash or not name or "/" in name or not rest:
        raise ConfigurationError(
            "target",
            text,
            "'deployment/NAME', 'statefulset/NAME', or 'plural.version.group/NAME' for other kinds",
        )
    first, _, group = rest.partition(".")
    if first[:1] == "v" and first[1:2].isdigit() and group:
        return Reference(group, first, plural, name)
    return Reference(rest, "", plural, name)


@lru_cache(maxsize=8192)
def quantity(text: str) -> float:
    """Return a resource quantity in its base unit (cores, bytes).

    Raises:
        ValueError: Not a quantity.

    >>> quantity("250m"), quantity("1.5Gi"), quantity("12345678n"), quantity("1e3")
    (0.25, 1610612736.0, 0.012345678, 1000.0)
    """
    if text.strip().lower().lstrip("+-") in ("nan", "inf", "infinity"):  # floats, but no quantities
        raise ValueError(f"not a quantity: {text!r}")
    try:
        return float(text)
    except ValueError:
        pass
    for length in (2, 1):
        if len(text) > length and text[-length:] in _SUFFIX:
            # a quotient rounds once for decimal suffixes: 250m is exactly 0.25
            size = _SUFFIX[text[-length:]]
            number = float(text[:-length])
            return number / round(1 / size) if size < 1 else number * size
    raise ValueError(f"not a quantity: {text!r}")


def namespaced(group: str, version: str, plural: str, namespace: str | None, *tail: str) -> str:
    """Return the path of a collection, object or subresource.

    >>> namespaced("apps", "v1", "deployments", "prod", "web", "scale")
    '/apis/apps/v1/namespaces/prod/deployments/web/scale'
    """
    root = f"/apis/{group}/{version}" if group else f"/api/{version}"
    middle = f"/namespaces/{namespace}" if namespace else ""
    return "/".join((f"{root}{middle}/{plural}", *tail))
