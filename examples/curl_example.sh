#!/usr/bin/env bash
# Ask with curl: models, an answer, a stream, a mistake.
#
#     examples/curl_example.sh
#
# Which server, and with which key: see connection.sh.
set -euo pipefail
source "$(dirname "$0")/connection.sh"

check_server

echo '--- The models'
ask "$base_url/models"

printf '\n\n--- An answer\n'
ask "$base_url/chat/completions" --data '{
    "model": "sonnet",
    "messages": [
        {"role": "system", "content": "Answer in one sentence."},
        {"role": "user", "content": "Why is the sky blue?"}
    ]
}'

printf '\n\n--- A stream\n'
ask "$base_url/chat/completions" --data '{
    "model": "sonnet",
    "stream": true,
    "stream_options": {"include_usage": true},
    "messages": [{"role": "user", "content": "Name three rivers."}]
}'

printf '\n--- A mistake\n'
ask "$base_url/chat/completions" --data '{"model": "sonnet", "messages": []}'
echo
