#!/usr/bin/perl
# Runs a program for every connection, with the connection as its standard input and output, as
# inetd does:  each.pl PROGRAM [ARGUMENT ...]
use strict;
use warnings;

$SIG{CHLD} = 'IGNORE';    # nobody asks how they ended
while (accept my $client, STDIN) {
    next if fork // die "fork: $!\n";
    $SIG{CHLD} = 'DEFAULT';
    open STDIN, '<&', $client and open STDOUT, '>&', $client or die "dup: $!\n";
    exec { $ARGV[0] } @ARGV or die "$ARGV[0]: $!\n";
}
die "accept: $!\n";
