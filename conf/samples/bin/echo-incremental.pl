#!/usr/bin/perl -T
# Five times, a second apart: what one read brings goes back.  Then the program closes the
# connection and takes the next.  It reads bytes, not lines, and speaks to one client at a time.

use strict;
use warnings;

use constant { ROUNDS => 5, AT_MOST => 1024 };

$SIG{PIPE} = 'IGNORE';    # a client that leaves ends its connection, not this program

while (accept my $client, STDIN) {
    for my $round (1 .. ROUNDS) {
        my $count = sysread $client, my $bytes, AT_MOST;
        last unless $count;
        sleep 1 if $round > 1;
        write_all($client, $bytes) or last;
    }
    close $client;
}
die "accept: $!\n";

sub write_all {
    my ($client, $bytes) = @_;
    while (length $bytes) {
        my $count = syswrite $client, $bytes;
        return unless $count;
        substr $bytes, 0, $count, '';
    }
    return 1;
}
