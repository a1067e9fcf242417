"""Issuers, key numbers, the ends of keys, revocations."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from kit.db import Database
from kit.errors import FanxingError
from signer import keys
from signer.keys import (
    Issuer,
    IssuerExists,
    IssuerInvalid,
    IssuerUnknown,
    KeyNumbersUsedUp,
    KeyState,
    Revocation,
    RevocationInvalid,
    SigningKey,
    SigningKeyMissing,
    SigningKeyUnknown,
)

from .conftest import GTIN, NOW, PREFIX, TrustDomain
