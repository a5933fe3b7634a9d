#!/usr/bin/env bash
# Ask with curl: models, an answer, a stream, a mistake.
#
#     examples/curl_example.sh
#
# OPENAI_BASE_URL is the server (http://localhost:8000/v1), OPENAI_API_KEY one of its keys, where it has any.
set -euo pipefail
base_url=${OPENAI_BASE_URL:-http://localhost:8000/v1}

ask() {
    curl --silent --show-error --no-buffer --header "Authorization: Bearer ${OPENAI_API_KEY:-not-needed}" \
        --header 'Content-Type: application/json' "$@"
}

status=$(ask --output /dev/null --write-out '%{http_code}' "$base_url/auth/status")
if [ "$status" = 401 ]; then
    echo "$base_url wants a key that it knows: put one into OPENAI_API_KEY." >&2
    exit 1
fi

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
