"""Talk to charon: an asyncio client on the codec of the ``vici`` package."""

from ipsecctl.vici.client import Client, connect_unix
from ipsecctl.vici.codec import MAX_FRAME_BYTES, Message, encode_message, text

__all__ = ["MAX_FRAME_BYTES", "Client", "Message", "connect_unix", "encode_message", "text"]
