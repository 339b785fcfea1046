# Sends mails in chunks with Net::SMTP. Argument: port.
use strict;
use warnings;
use Net::SMTP;

my $peer = Net::SMTP->new("127.0.0.1", Port => $ARGV[0], Timeout => 60) or die "no connection: $@";
defined $peer->supports("CHUNKING") or die "no CHUNKING";

sub envelope {
    $peer->mail('a@example.org', Bits => "binary") and $peer->to('b@example.org') or die $peer->message;
}

envelope();
$peer->bdat("one\n.\r\n.\rtwo") or die $peer->message;
$peer->bdat("\r\n.\r\nQUIT\r\n") or die $peer->message;
$peer->bdatlast("the end") or die $peer->message;
envelope();
$peer->bdatlast("x" x 300_000) or die $peer->message;
$peer->quit or die $peer->message;
print "two mails in chunks\n";
