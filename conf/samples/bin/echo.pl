#!/usr/bin/perl -T
# A line in, the same line out.  The listening socket is descriptor 0; one connection is served
# after the other, and the next ones wait in the backlog.  Nothing in here knows of WebSocket.

use strict;
use warnings;
use IO::Handle;

$SIG{PIPE} = 'IGNORE';    # a client that leaves ends its connection, not this program

while (accept my $client, STDIN) {
    $client->autoflush;
    while (defined(my $line = readline $client)) {
        print {$client} $line or last;
    }
    close $client;
}
die "accept: $!\n";
