"""A method's test may also run the main job."""

from tests.workflow.conftest import base, encoder, quick

__all__ = ["base", "encoder", "quick"]
