"""The only code that touches a plugin's socket: one `Channel` for each running instance."""

from cardcage.channel.channel import Channel
from cardcage.channel.handler import ChannelHandler, CloseReason
from cardcage.channel.limits import STREAM_WINDOW_ITEMS, ChannelLimits
from cardcage.channel.peer import Peer
from cardcage.channel.streams import Stream

__all__ = [
    "STREAM_WINDOW_ITEMS",
    "Channel",
    "ChannelHandler",
    "ChannelLimits",
    "CloseReason",
    "Peer",
    "Stream",
]
