#!/bin/bash
# Runs Prometheus with alerts.yml against two nodes, one of which has no broker, and prints what
# it finds of them, which alerts are pending or firing, and what each expression of the dashboard in deploy/grafana
# comes to. It needs go, curl, jq, prometheus and promtool, and the ports 39090 to 39093 of this machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait; rm -rf "$dir"' EXIT

promtool check rules deploy/prometheus/alerts.yml
go build -o "$dir/steward" ./cmd/steward
node() { # name, port of its metrics, flags
	mkdir "$dir/$1"
	(cd "$dir/$1" && exec "$dir/steward" -nodeName="$1" -promHostAndPort="127.0.0.1:$2" "${@:3}") >"$dir/$1.log" 2>&1 &
	pids+=($!)
}
node central 39091 -embeddedBroker=127.0.0.1:39093
node ship1 39092 -brokerAddress=127.0.0.1:1
cp deploy/prometheus/alerts.yml "$dir/"
cat >"$dir/prometheus.yml" <<-END
	global: {scrape_interval: 1s, evaluation_interval: 1s}
	rule_files: [alerts.yml]
	scrape_configs: [{job_name: steward, static_configs: [{targets: ["127.0.0.1:39091", "127.0.0.1:39092"]}]}]
END
prometheus --config.file="$dir/prometheus.yml" --storage.tsdb.path="$dir/tsdb" --web.listen-address=127.0.0.1:39090 >"$dir/prometheus.log" 2>&1 &
pids+=($!)

ask() { curl -fsS --get "http://127.0.0.1:39090/api/v1/query" --data-urlencode "query=$1"; }
for _ in {1..30}; do
	if ask 'ALERTS{alertname="StewardNodeNotConnected"}' 2>/dev/null | grep -q 39092; then
		echo "scraped: $(ask 'up{job="steward"}')"
		echo "alerts:  $(ask ALERTS)"
		# As Grafana does it, with what it puts in the place of its variables.
		jq -r '.panels[].targets[]?.expr' deploy/grafana/steward.json | sed 's/\$__rate_interval/5s/g; s/\$instance/.*/g' >"$dir/exprs"
		while read -r expr; do
			ask "$expr" >"$dir/answer" || { echo "Prometheus cannot read $expr" >&2; exit 1; }
			echo "dashboard: $(jq '.data.result | length' "$dir/answer") series: $expr"
		done <"$dir/exprs"
		exit
	fi
	sleep 1
done
echo "no alert for the node without a broker; log of Prometheus:" >&2
tail "$dir/prometheus.log" >&2
exit 1
