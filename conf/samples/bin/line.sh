#!/bin/sh
# A message is a line, so a shell script will do: each.pl runs one for every client.
count=0
while IFS= read -r line; do
    count=$((count + 1))
    printf '%s: %s\n' "$count" "$line"
done
