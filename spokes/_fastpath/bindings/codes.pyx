"""Enumerations and codes of the engine as Python has them; each is written once, in the module that acts by it."""
from spokes._fastpath.flow.fault cimport fault_page
from spokes._fastpath.route.outcome cimport FAULT_COUNT, FAULT_CUT, FAULT_NONE

from enum import IntEnum

from spokes._fastpath.core.events import EventKind as CEventKind, LinkDown as CLinkDown
from spokes._fastpath.core.visitor import ListenerKind as CListenerKind
from spokes._fastpath.http.page import PageId
from spokes._fastpath.route.route import RouteKind as CRouteKind
from spokes.errors import EngineError

# Codes of pages by their PageId; [0] is "": no page.
PAGE_CODES = ("",) + tuple(name.replace("PAGE", "SPK", 1).replace("_", "-") for name in PageId.__members__
                           if name not in ("PAGE_NONE", "PAGE_COUNT"))


def page_id(str code):
    """The PageId of a code; EngineError where there is none."""
    if code not in PAGE_CODES:
        raise EngineError(f"{code} is no page")
    return PAGE_CODES.index(code)


def fault_code(fault):
    """What the control plane calls a fault: as the page that visitors get for it, where there is one."""
    if fault == FAULT_NONE:
        return ""
    return "SPK-UPSTREAM-CUT" if fault == FAULT_CUT else PAGE_CODES[fault_page(fault)]


FAULT_CODES = tuple(fault_code(fault) for fault in range(<int>FAULT_COUNT))


def without_prefix(str name, members):
    """The enumeration of C whose members are PREFIX_NAME, as Python has it: NAME."""
    return IntEnum(name, {word.partition("_")[2]: int(value) for word, value in members.__members__.items()},
                   module="spokes._fastpath.engine")


ListenerKind = without_prefix("ListenerKind", CListenerKind)
RouteKind = without_prefix("RouteKind", CRouteKind)
EventKind = without_prefix("EventKind", CEventKind)
LinkDown = without_prefix("LinkDown", CLinkDown)
