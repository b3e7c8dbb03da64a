"""A provider on loopback that speaks the OpenAI, Cohere and Voyage wire and keeps its own bill.

Tests, demonstrations and benchmarks talk to it through the real SDKs; its bill is what the ledger is held against.
"""

from router.sandbox.bill import Bill, Received
from router.sandbox.config import SandboxConfig
from router.sandbox.faults import Fault
from router.sandbox.server import Sandbox, run
from router.sandbox.vectors import expected_vector, expected_vectors

__all__ = [
    "Bill",
    "Fault",
    "Received",
    "Sandbox",
    "SandboxConfig",
    "expected_vector",
    "expected_vectors",
    "run",
]
