#!/usr/bin/env bash
# The operator's day with curl, on this machine and from nothing: a server, a user with limits, a tunnel for them, a
# client that runs with the tunnel's token, a rule changed from afar, and what tells of it all: traffic, the admin
# event, the webhook, the metric. Read it as an example of the Admin API (docs/admin-api.md); it says what it does,
# stops at the first thing that is not as it should be, and leaves nothing behind.
#
#   packaging/admin-demo.sh                ports: HTTP_PORT, HTTPS_PORT, TCP_PORTS (BEGIN-END)
#   KEEP=1 packaging/admin-demo.sh         keeps the directory with all logs
set -euo pipefail

bin=$(cd "$(dirname "$0")/../.venv/bin" && pwd)
http_port=${HTTP_PORT:-8080} https_port=${HTTPS_PORT:-8443} tcp_ports=${TCP_PORTS:-22000-22099}
domain=localhost                        # curl and browsers take every name under it for this machine
home=$(mktemp -d) && cd "$home"
children=()

say() { printf '\n== %s\n' "$*"; }
fail() {
    printf 'admin-demo: %s (logs in %s)\n' "$*" "$home" >&2
    KEEP=1
    exit 1
}
finish() {
    for pid in "${children[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    [ -n "${KEEP:-}" ] || rm -rf "$home"
}
trap finish EXIT

until_true() {                          # SECONDS WHAT COMMAND...: until the command succeeds
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$what: not in time"
        sleep 0.1
    done
}
field() { "$bin/python" -c 'import json, sys
value = json.load(sys.stdin)
for name in sys.argv[1].split("."):
    value = value[int(name)] if name.isdigit() else value[name]
print(json.dumps(value) if isinstance(value, (dict, list)) else value)' "$1"; }

base=http://$domain:$http_port/api/admin
api() {                                 # PATH [JSON]: the answer, printed and checked
    local answer
    answer=$(curl -sS -b jar -c jar -H 'Content-Type: application/json' -H 'Accept: application/json' \
        ${2:+-d "$2"} "$base/$1") || fail "$1: no answer"
    [ "$(field status <<<"$answer")" = True ] || fail "$1: $(field error <<<"$answer")"
    printf '%s\n' "$answer"
}
# What a visitor of the site gets.
visit() { curl -sS -H "Host: $1" "http://127.0.0.1:$http_port/"; }

# Two services of the user's, and the place where webhooks arrive: it keeps what it is told.
cat >services.py <<'PYTHON'
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"hello from {sys.argv[1]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        with open(f"{sys.argv[1]}.received", "ab") as file:
            file.write(self.rfile.read(int(self.headers["Content-Length"])) + b"\n")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], file=open(f"{sys.argv[1]}.port", "w"), flush=True)
server.serve_forever()
PYTHON
for name in old new hook; do
    "$bin/python" services.py $name &
    children+=($!)
done
for name in old new hook; do until_true 10 "the service $name" test -s $name.port; done

say "A server"
"$bin/spokes" server --data data --domain $domain --http "127.0.0.1:$http_port" --https "127.0.0.1:$https_port" \
    --tcp-address 127.0.0.1 --tcp-ports "$tcp_ports" --drain-timeout 1 >server.log 2>&1 &
children+=($!)
until_true 30 "the server (server.log)" grep -q 'Spokes is ready' server.log
until_true 30 "the administration (server.log)" curl -sf "http://$domain:$http_port/healthz"

say "An API key, made on the server's shell, and a session with it"
key=$("$bin/spokes" apikey create --description operator --data data --json | field value)
api v1.0/auth "{\"key\": \"$key\"}"
api v1.0/info

say "A webhook for everything of sites and services; allowPrivate, because it leads to this machine"
hook=$(api v1.1/webhook/create "{\"url\": \"http://127.0.0.1:$(cat hook.port)/\", \"kinds\": [\"site\", \"service\"],
    \"allowPrivate\": true}" | field webhook.id)

say "A user, limited: 2 GB in a month, one port, only domains under example.org"
user=$(api v1.0/user/create '{"email": "mara@example.org", "fullname": "Mara Lind", "Active": true, "bandwidth": 2000,
    "maxPorts": 1, "checkPorts": true, "checkDomains": true}' | field user.id)
api v1.0/user/domain/allow "{\"userID\": \"$user\", \"domains\": [\"*.example.org\"]}"

say "A tunnel for the user (37); zeros: the server chooses the id, and \"\" the host name"
zero=00000000000000000000000000000000
api v1.0/user/tunnel/create "{\"userID\": \"$user\", \"tunID\": \"$zero\", \"name\": \"desk\", \"hostname\": \"\"}" >tunnel.json
tunnel=$(field tunnel.id <tunnel.json) token=$(field token.value <tunnel.json)
hostname=$(field tunnel.hostname <tunnel.json)
echo "$hostname"

say "Its client, on the user's machine: the tunnel's configuration (18) is the client's file"
api "v1.0/tunnel/config/$tunnel" | field config >client.json
chmod 600 client.json
[ "$(field key <client.json)" = "$token" ] || fail "the configuration holds another token"
"$bin/spoke" start --config client.json --api-port 0 >client.log 2>&1 &
children+=($!)
is_online() { api v1.0/tunnel/list/online | grep -q "$tunnel"; }
until_true 15 "the tunnel on-line (client.log)" is_online

say "A rule from afar: shop.example.org leads to the old service, then to the new one"
rule() { printf '{"sites": [{"domain": "%s", "destination": "127.0.0.1", "port": %s}]}' "$1" "$(cat "$2.port")"; }
shows() { [ "$(visit shop.example.org)" = "hello from $1" ]; }
api "v1.0/tunnel/traffic/http/update/$tunnel" "$(rule shop.example.org old)"
until_true 5 "the rule in force" shows old
api "v1.0/tunnel/traffic/http/update/$tunnel" "$(rule shop.example.org new)"
until_true 5 "the changed rule in force" shows new
visit shop.example.org

say "What the limits refuse"
refused() { curl -sS -b jar -H 'Content-Type: application/json' -H 'Accept: application/json' ${2:+-d "$2"} "$base/$1" | tee refused.json; echo; }
refused "v1.0/tunnel/traffic/http/update/$tunnel" "$(rule shop.example.com new)"
[ "$(field code <refused.json)" = SPK-NOT-ALLOWED ] || fail "a domain that is not allowed was taken"
api "v1.0/tunnel/traffic/tcp/allocate/$tunnel"
refused "v1.0/tunnel/traffic/tcp/allocate/$tunnel"
[ "$(field code <refused.json)" = SPK-NOT-ALLOWED ] || fail "a second port was allocated"

say "The traffic, once it is counted"
has_traffic() { [ "$(api "v1.0/tunnel/info/$tunnel" | field tunnel.bandwidth.monthly)" -gt 0 ]; }
until_true 15 "the traffic of the tunnel" has_traffic
api "v1.0/tunnel/info/$tunnel" | field tunnel.bandwidth

say "The event: who changed the rule, when, from where"
api v1.1/event/list | "$bin/python" -c 'import json, sys
for event in json.load(sys.stdin)["events"]:
    print(event["time"], event["actorName"], event["address"], event["action"])' | tee events.txt
grep -q 'site.edit' events.txt || fail "no event of the change"
api v1.1/event/verify

say "The webhook: the site made and changed, the service up"
hears() { grep -q '"site.created"' hook.received && grep -q '"site.changed"' hook.received && grep -q '"available":true' hook.received; }
until_true 15 "the webhook" hears
api "v1.1/webhook/deliveries/$hook" | "$bin/python" -c 'import json, sys
for delivery in json.load(sys.stdin)["deliveries"]:
    print(delivery["kind"], delivery["state"], delivery["httpStatus"])'

say "The metric"
curl -sS -H "Authorization: Bearer $key" "http://$domain:$http_port/metrics" >metrics.txt
grep "$tunnel" metrics.txt || fail "the tunnel is in no metric"

say "The user is deactivated: the tunnel is off-line at once, and its client says why"
api v1.0/user/activate "{\"userID\": \"$user\", \"Active\": false}" >/dev/null
until_true 5 "the client's last words (client.log)" grep -q SPK-INACTIVE client.log
tail -n 1 client.log

say "Done"
