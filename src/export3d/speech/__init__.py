"""Speech: the sound of a voice becomes ARKit weights over time (not in the paper)."""

from export3d.speech.phones import Phone, phones_of
from export3d.speech.sound import RATE_HZ, read_sound
from export3d.speech.visemes import mouth_weights

__all__ = ["RATE_HZ", "Phone", "mouth_weights", "phones_of", "read_sound"]
