"""The table of all endpoints, one line each. dispatch.py serves it and openapi.py describes it."""

from __future__ import annotations

from spokes.admin.context import Scope
from spokes.admin.csv_text import CSV
from spokes.admin.resources import (
    access,
    events,
    people,
    portmaps,
    ports,
    session,
    sites,
    tokens,
    traffic,
    tunnels,
    user_tunnels,
    users,
    webhooks,
)
from spokes.admin.routing import LIST_BODY_BYTES_MAX as LIST
from spokes.admin.routing import SITES_BODY_BYTES_MAX as SITES
from spokes.admin.routing import Route

V1 = "/api/admin/v1.0"                   # the contract of existing clients
OWN = "/api/admin/v1.1"                  # what goes beyond it; same envelope
WRITE = Scope.WRITE                      # also where an answer holds what one logs in with

ROUTES: tuple[Route, ...] = (
    # session and server
    Route("POST", f"{V1}/auth", session.auth, public=True, statuses=(401, 429)),
    Route("GET", f"{V1}/info", session.info),
    Route("GET", f"{V1}/ping", session.ping),
    Route("GET", f"{V1}/keepalive", session.keepalive),
    Route("GET", f"{V1}/logout", session.logout),
    Route("GET", f"{V1}/license/info", session.license_info),
    # registration tokens
    Route("GET", f"{V1}/token/registration/list", tokens.list_all, admin_only=True),
    Route("POST", f"{V1}/token/registration/create", tokens.create, admin_only=True),
    Route("POST", f"{V1}/token/registration/edit", tokens.edit, admin_only=True, statuses=(404,)),
    Route("POST", f"{V1}/token/registration/delete", tokens.delete, admin_only=True, statuses=(404,)),
    # tunnels
    Route("GET", f"{V1}/tunnel/list", tunnels.list_pages),
    Route("GET", f"{V1}/tunnel/list/active", tunnels.list_active, whole_list=True),
    Route("GET", f"{V1}/tunnel/list/online", tunnels.list_online, whole_list=True),
    Route("POST", f"{V1}/tunnel/search", tunnels.search, scope=Scope.READ),
    Route("GET", f"{V1}/tunnel/page/{{page_uid}}", tunnels.page),
    Route("GET", f"{V1}/tunnel/info/{{tunnel_uid}}", tunnels.info),
    Route("GET", f"{V1}/tunnel/auth/{{tunnel_uid}}", tunnels.auth, scope=WRITE),
    Route("GET", f"{V1}/tunnel/config/{{tunnel_uid}}", tunnels.config, scope=WRITE),
    Route("GET", f"{V1}/tunnel/shutdown/{{tunnel_uid}}", tunnels.shutdown, scope=WRITE),
    # public ports
    Route("GET", f"{V1}/port/list", ports.list_all),
    Route("GET", f"{V1}/port/range", ports.read_range),
    # traffic rules of a tunnel
    Route("POST", f"{V1}/tunnel/traffic/http/update/{{tunnel_uid}}", sites.update, bytes_max=SITES, statuses=(409,)),
    Route("POST", f"{V1}/tunnel/traffic/http/remove/{{tunnel_uid}}", sites.remove, bytes_max=LIST, statuses=(409,)),
    Route("GET", f"{V1}/tunnel/traffic/tcp/allocate/{{tunnel_uid}}", ports.allocate, scope=WRITE),
    Route("POST", f"{V1}/tunnel/traffic/tcp/release/{{tunnel_uid}}", ports.release),
    Route("POST", f"{V1}/tunnel/traffic/tcp/update/{{tunnel_uid}}", ports.update, bytes_max=LIST, statuses=(409,)),
    Route("POST", f"{V1}/tunnel/traffic/tcp/reset/{{tunnel_uid}}", ports.reset, bytes_max=LIST, statuses=(409,)),
    Route(
        "POST", f"{V1}/tunnel/traffic/portmap/update/{{tunnel_uid}}", portmaps.update, bytes_max=LIST, statuses=(409,)
    ),
    Route(
        "POST", f"{V1}/tunnel/traffic/portmap/remove/{{tunnel_uid}}", portmaps.remove, bytes_max=LIST, statuses=(409,)
    ),
    # tunnels of users
    Route("POST", f"{V1}/user/tunnel/create", user_tunnels.create, statuses=(404, 409)),
    Route("GET", f"{V1}/user/tunnel/stop/{{tunnel_uid}}", user_tunnels.stop, scope=WRITE),
    Route("GET", f"{V1}/user/tunnel/list/{{user_uid}}", user_tunnels.list_of_user, whole_list=True),
    # users
    Route("GET", f"{V1}/user/list", users.list_all),
    Route("GET", f"{V1}/user/get/{{user_uid}}", users.get),
    Route("POST", f"{V1}/user/create", users.create, admin_only=True, statuses=(409,)),
    Route("POST", f"{V1}/user/import", users.import_one, admin_only=True, statuses=(409,)),
    Route("POST", f"{V1}/user/edit", users.edit, admin_only=True, statuses=(404, 409)),
    Route("POST", f"{V1}/user/activate", users.activate, admin_only=True, whole_list=True, statuses=(404,)),
    Route("GET", f"{V1}/user/delete/{{user_uid}}", users.delete, scope=WRITE, admin_only=True),
    Route("POST", f"{V1}/user/bandwidth/cap", users.cap_bandwidth, admin_only=True, statuses=(404,)),
    Route("POST", f"{V1}/user/domain/allow", users.allow_domains, admin_only=True, bytes_max=LIST, statuses=(404,)),
    Route("POST", f"{V1}/user/domain/remove", users.remove_domains, admin_only=True, bytes_max=LIST, statuses=(404,)),
    Route("GET", f"{V1}/user/domain/list/{{user_uid}}", users.list_domains),
    Route("GET", f"{V1}/user/domain/reset/{{user_uid}}", users.reset_domains, scope=WRITE, admin_only=True),
    # people
    Route("POST", f"{OWN}/login", people.login, public=True, statuses=(401, 429)),
    Route("GET", f"{OWN}/me", people.me),
    Route("GET", f"{OWN}/person/list", people.list_all, admin_only=True),
    Route("GET", f"{OWN}/person/get/{{user_uid}}", people.get, admin_only=True),
    Route("POST", f"{OWN}/person/create", people.create, admin_only=True, statuses=(409,)),
    Route("POST", f"{OWN}/person/edit", people.edit, admin_only=True, statuses=(404, 409)),
    Route("POST", f"{OWN}/person/password", people.set_password, statuses=(404,)),
    Route("POST", f"{OWN}/person/totp/new", people.new_totp),
    Route("POST", f"{OWN}/person/totp/confirm", people.confirm_totp),
    Route("POST", f"{OWN}/person/totp/remove", people.remove_totp, statuses=(404,)),
    Route("GET", f"{OWN}/domain/proofs/{{user_uid}}", users.list_verifications),
    Route("POST", f"{OWN}/domain/prove", users.verify_domain, statuses=(404,)),
    Route("POST", f"{OWN}/tunnel/delete", user_tunnels.delete, statuses=(404,)),
    Route("POST", f"{OWN}/tunnel/key/edit", user_tunnels.edit_key, admin_only=True, statuses=(404,)),
    Route("POST", f"{OWN}/tunnel/key/renew", user_tunnels.renew_key, statuses=(404,)),
    # API keys and sessions
    Route("GET", f"{OWN}/key/list", access.list_keys),
    Route("POST", f"{OWN}/key/create", access.create_key, statuses=(404,)),
    Route("POST", f"{OWN}/key/edit", access.edit_key, statuses=(404,)),
    Route("POST", f"{OWN}/key/delete", access.delete_key, statuses=(404,)),
    Route("GET", f"{OWN}/login/list", access.list_logins),
    Route("POST", f"{OWN}/login/end", access.end_login, statuses=(404,)),
    # admin events and alerts
    Route("GET", f"{OWN}/event/list", events.list_all, admin_only=True),
    Route("GET", f"{OWN}/event/verify", events.verify, admin_only=True),
    Route(
        "GET", f"{OWN}/event/export/json-lines", events.export_json_lines, admin_only=True,
        media_types=(events.JSON_LINES,),
    ),
    Route("GET", f"{OWN}/event/export/csv", events.export_csv, admin_only=True, media_types=(CSV,)),
    Route("GET", f"{OWN}/alert/list", events.list_alerts, admin_only=True),
    Route("POST", f"{OWN}/alert/acknowledge", events.acknowledge_alert, admin_only=True, statuses=(404,)),
    # traffic and visits
    Route("GET", f"{OWN}/traffic/list", traffic.list_traffic),
    Route("GET", f"{OWN}/traffic/export/csv", traffic.export_traffic, media_types=(CSV,)),
    Route("GET", f"{OWN}/visit/list", traffic.list_visits),
    Route("GET", f"{OWN}/visit/export/csv", traffic.export_visits, media_types=(CSV,)),
    # webhooks
    Route("GET", f"{OWN}/webhook/list", webhooks.list_all),
    Route("GET", f"{OWN}/webhook/get/{{webhook_uid}}", webhooks.get),
    Route("POST", f"{OWN}/webhook/create", webhooks.create, statuses=(404,)),
    Route("POST", f"{OWN}/webhook/edit", webhooks.edit, statuses=(404,)),
    Route("POST", f"{OWN}/webhook/delete", webhooks.delete, statuses=(404,)),
    Route("POST", f"{OWN}/webhook/test", webhooks.test, statuses=(404,)),
    Route("GET", f"{OWN}/webhook/deliveries/{{webhook_uid}}", webhooks.list_deliveries),
    Route("POST", f"{OWN}/webhook/resend", webhooks.resend, statuses=(404,)),
)
