#!/usr/bin/perl
# Before every message stand its type (1: text, 2: binary) and its length.  Text goes back in
# capitals, binary reversed; each.pl runs this for every client.
use strict;
use warnings;

binmode STDIN;
binmode STDOUT;
$| = 1;
while (read(STDIN, my $head, 5) == 5) {
    my ($type, $size) = unpack 'C N', $head;
    read(STDIN, my $message, $size) == $size or last;
    print pack 'C N/a*', $type, $type == 1 ? uc $message : scalar reverse $message;
}
