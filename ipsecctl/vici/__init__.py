"""Talk to charon: an asyncio client on the codec of the ``vici`` package."""

from ipsecctl.vici.client import Client, connect_unix
from ipsecctl.vici.codec import MAX_FRAME_BYTES, Message, encode_message, text
from ipsecctl.vici.listing import Listing

__all__ = ["MAX_FRAME_BYTES", "Client", "Listing", "Message", "connect_unix", "encode_message", "text"]
