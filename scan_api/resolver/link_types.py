"""Link types: what a link leads to, in the words of the GS1 Web Vocabulary.

A type is known by its bare name (`pip`), written as `gs1:pip` by people and as a whole address in link sets. Names of
other vocabularies are not taken: the vocabulary declared in `/.well-known/gs1resolver` is GS1's alone.
Source: GS1-Conformant Resolver Standard 1.2, 2.5.2 and 2.14; GS1 Web Vocabulary, link types as of 2026.
"""

from typing import Final

from kit.errors import Invalid


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NAMESPACE: Final = "https://ref.gs1.org/voc/"
PREFIX: Final = "gs1:"
_SPELLINGS: Final = (PREFIX, NAMESPACE, "https://gs1.org/voc/", "https://www.gs1.org/voc/")
"""GS1 has published the vocabulary under three addresses, and clients use all of them."""

PIP: Final = "pip"
"""A page about the product."""
DEFAULT: Final = "defaultLink"
DEFAULT_MULTI: Final = "defaultLinkMulti"
LINK_SET: Final = frozenset({"linkset", "all"})
"""What asks for all links, no link type of its own; `all` is what resolvers before 1.0 of the standard called it."""

NAMES: Final = _words("""
    activityIdeas allergenInfo appDownload backgroundInfo brandHomepageClinical brandHomepagePatient careersInfo
    certificationInfo consumerHandlingStorageInfo dpp eifu epcis epil eventsInfo faqs hasRetailers homepage
    ingredientsInfo instructions jws leaveReview locationInfo logisticsInfo loyaltyProgram masterData menuInfo
    nutritionalInfo openingHoursInfo paymentLink pip productSustainabilityInfo promotion purchaseSuppliesOrAccessories
    quickStartGuide recallStatus recipeInfo registerProduct registryEntry relatedImage relatedVideo reportFound review
    safetyInfo scheduleTime serviceInfo smartLabel smpc socialMedia statisticInfo subscribe support sustainabilityInfo
    traceability tutorial userAgreement verificationService whatsInTheBox
""")
"""Those a brand may give to a link. `defaultLink` and `defaultLinkMulti` follow from a link's role; `handledBy`, which
hands a whole prefix to another resolver, does not exist here."""


class LinkTypeInvalid(Invalid):
    code = "LinkTypeInvalid"


def bare(text: str) -> str:
    """The bare name behind a type as somebody wrote it; what is written in no known way comes back as it is."""
    for spelling in _SPELLINGS:
        if text.startswith(spelling):
            return text.removeprefix(spelling)
    return text


def named(text: str) -> str:
    """The bare name of a type that a link may have, as `gs1:pip` or as an address. Raises LinkTypeInvalid."""
    name = bare(text)
    if name == text or name not in NAMES:
        raise LinkTypeInvalid(
            "a link's type is one of the GS1 Web Vocabulary, such as gs1:pip or gs1:certificationInfo",
            hint="docs/resolver.md lists them. gs1:defaultLink is not given: it follows from the link's role.",
        )
    return name


def short(name: str) -> str:
    """The type as people write it: `gs1:pip`."""
    return PREFIX + name


def uri(name: str) -> str:
    """The type as link sets have it: `https://ref.gs1.org/voc/pip`."""
    return NAMESPACE + name
