"""The standard words of EPCIS events and the URIs that they stand for (CBV 2.0, 7; EPCIS 2.0 JSON-LD context 2.0.0).

In JSON a standard word stands bare (`shipping`), in XML as a URN or a CURIE (`urn:epcglobal:cbv:bizstep:shipping`,
`cbv:BizStep-shipping`); all of them mean one web URI (`https://ref.gs1.org/cbv/BizStep-shipping`).
"""

from collections.abc import Mapping
from types import MappingProxyType

CBV = "https://ref.gs1.org/cbv/"
GS1 = "https://gs1.org/voc/"
EPCIS = "https://ref.gs1.org/epcis/"
CBV_URN = "urn:epcglobal:cbv:"
MASTER_DATA = "urn:epcglobal:cbv:mda"

# The context of EPCIS 2.0 writes the last with a colon at its end, XML without; this is XML's, so that both hash alike.
STANDARD_PREFIXES: Mapping[str, str] = MappingProxyType(
    {
        "epcis": EPCIS,
        "cbv": CBV,
        "gs1": GS1,
        "cbvmda": MASTER_DATA,
        "rdfs": "http://www.w3.org/2000/01/rdf-schema#",
        "owl": "http://www.w3.org/2002/07/owl#",
        "xsd": "http://www.w3.org/2001/XMLSchema#",
        "dcterms": "http://purl.org/dc/terms/",
    }
)


def _words(base: str, words: str) -> Mapping[str, str]:
    return MappingProxyType({word: base + word for word in words.split()})


BUSINESS_STEPS = _words(
    CBV + "BizStep-",
    "accepting arriving assembling collecting commissioning consigning creating_class_instance cycle_counting "
    "decommissioning departing destroying disassembling dispensing encoding entering_exiting holding inspecting "
    "installing killing loading other packing picking receiving removing repackaging repairing replacing reserving "
    "retail_selling sampling sensor_reporting shipping staging_outbound stock_taking stocking storing transporting "
    "unloading unpacking void_shipping",
)
DISPOSITIONS = _words(
    CBV + "Disp-",
    "active available completeness_inferred completeness_verified conformant container_closed container_open damaged "
    "destroyed dispensed disposed encoded expired in_progress in_transit inactive mismatch_class mismatch_instance "
    "mismatch_quantity needs_replacement no_pedigree_match non_conformant non_sellable_other partially_dispensed "
    "recalled reserved retail_sold returned sellable_accessible sellable_not_accessible stolen unavailable unknown",
)
TRANSACTION_TYPES = _words(
    CBV + "BTT-", "bol cert desadv inv pedigree po poc prodorder recadv rma testprd testres upevt"
)
SOURCE_DESTINATION_TYPES = _words(CBV + "SDT-", "owning_party possessing_party location")
ERROR_REASONS = _words(CBV + "ER-", "did_not_occur incorrect_data")
COMPONENTS = _words(
    CBV + "Comp-",
    "x y z axial_distance azimuth height spherical_radius polar_angle elevation_angle easting northing latitude "
    "longitude altitude",
)
SENSOR_ALERTS = _words(GS1, "ALARM_CONDITION ERROR_CONDITION")
MEASUREMENTS = _words(
    GS1,
    "AbsoluteHumidity AbsorbedDose AbsorbedDoseRate Acceleration Altitude AmountOfSubstance "
    "AmountOfSubstancePerUnitVolume Angle AngularAcceleration AngularMomentum AngularVelocity Area Capacitance "
    "Conductance Conductivity Count Density Dimensionless DoseEquivalent DoseEquivalentRate DynamicViscosity "
    "ElectricCharge ElectricCurrent ElectricCurrentDensity ElectricFieldStrength "
    "Energy Exposure Force Frequency Illuminance Inductance Irradiance KinematicViscosity Length LinearMomentum "
    "Luminance LuminousFlux LuminousIntensity MagneticFlux MagneticFluxDensity MagneticVectorPotential Mass "
    "MassConcentration MassFlowRate MassPerAreaTime MemoryCapacity MolalityOfSolute MolarEnergy MolarMass MolarVolume "
    "Power Pressure RadiantFlux RadiantIntensity Radioactivity RelativeHumidity Resistance Resistivity SolidAngle "
    "SpecificVolume Speed SurfaceDensity SurfaceTension Temperature Time Torque Voltage Volume VolumeFlowRate "
    "VolumeFraction VolumetricFlux Wavenumber",
)

_URN_PARTS = {"bizstep": "BizStep-", "disp": "Disp-", "btt": "BTT-", "sdt": "SDT-", "er": "ER-", "comp": "Comp-"}


def web_uri(urn: str) -> str:
    """The web URI of a standard word's URN (`urn:epcglobal:cbv:bizstep:shipping`); any other text as it is.

    Business transaction identifiers (`urn:epcglobal:cbv:bt:…`) are no words and stay (CBV 2.0, 8.5).
    """
    if not urn.startswith(CBV_URN):
        return urn
    part, _, word = urn[len(CBV_URN) :].partition(":")
    return f"{CBV}{_URN_PARTS[part]}{word}" if part in _URN_PARTS and word else urn


def bare_word(text: str, words: Mapping[str, str]) -> str:
    """The bare word for a URN, web URI or CURIE of one of `words`, as JSON writes it; any other text as it is."""
    uri = web_uri(text)
    for prefix, base in (("cbv:", CBV), ("gs1:", GS1), ("https://ref.gs1.org/voc/", GS1)):
        if uri.startswith(prefix):
            uri = base + uri[len(prefix) :]
            break
    word = uri.rpartition("/")[2]
    if words is not MEASUREMENTS and words is not SENSOR_ALERTS:
        word = word.partition("-")[2]
    return word if words.get(word) == uri else text
