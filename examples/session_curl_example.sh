#!/usr/bin/env bash
# Let the server remember a conversation, with curl.
#
#     examples/session_curl_example.sh
#
# Which server, and with which key: see connection.sh.
set -euo pipefail
source "$(dirname "$0")/connection.sh"
session_id=example-$$-$RANDOM

say() {
    printf '\n--- %s\n' "$1"
    ask --fail-with-body "$base_url/chat/completions" --data '{
        "model": "sonnet",
        "session_id": "'"$session_id"'",
        "messages": [{"role": "user", "content": "'"$1"'"}]
    }'
}

check_server
say 'My name is Ada.'
say 'What is my name?'

printf '\n\n--- The session\n'
ask "$base_url/sessions/$session_id"
printf '\n\n--- Forgotten\n'
ask --request DELETE "$base_url/sessions/$session_id"
printf '\n\n--- Gone\n'
ask "$base_url/sessions/$session_id"
echo
