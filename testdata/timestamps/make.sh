#!/usr/bin/env bash
# Makes the fixtures of this folder again. Wants openssl, curl and timestamp-server on PATH, and port 39181.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
printf 'a message' >message

timestamp-server serve --host 127.0.0.1 --port 39181 --disable-ntp-monitoring >log 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
curl -sf --retry 20 --retry-all-errors --retry-delay 1 http://127.0.0.1:39181/api/v1/timestamp/certchain -o "$here/sigstore.pem"
for name in sigstore sigstore-bare; do
  openssl ts -query -data message -sha512 $([[ $name == *bare ]] || echo -cert) -out query
  curl -sf -H 'Content-Type: application/timestamp-query' --data-binary @query \
    http://127.0.0.1:39181/api/v1/timestamp -o "$here/$name.tsr"
done

cat >ext <<'END'
[ca]
basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign,cRLSign
[tsa]
keyUsage=critical,digitalSignature
extendedKeyUsage=critical,timeStamping
[ts]
default_tsa=one
[one]
serial=serial
default_policy=1.2.3.4.1
digests=sha256,sha384,sha512
signer_digest=sha384
accuracy=secs:2,millisecs:500,microsecs:100
clock_precision_digits=3
ordering=yes
tsa_name=yes
ess_cert_id_chain=no
ess_cert_id_alg=sha256
END
echo 01 >serial
pss='-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest'
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj '/O=Acme/CN=timestamps root' -days 3650 -sha256 $pss \
  -config <(printf '[req]\ndistinguished_name=dn\n[dn]\n'; cat ext) -extensions ca
cp ca.crt "$here/openssl.pem"
openssl ts -query -data message -sha256 -cert -out query

# NAME BITS FROM TO: a key of so many bits; FROM in the configuration becomes TO.
token() {
  openssl req -newkey "rsa:$2" -nodes -keyout tsa.key -out tsa.csr -subj '/O=Acme/CN=timestamps'
  openssl x509 -req -in tsa.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3600 -sha256 $pss -extfile ext -extensions tsa -out tsa.crt
  sed "s/$3/$4/" ext >changed
  openssl ts -reply -config changed -section one -queryfile query -signer tsa.crt -inkey tsa.key -chain ca.crt -out "$here/$1.tsr"
}
token openssl 3072 nothing nothing
token openssl-weak 1024 nothing nothing
token openssl-sha1 2048 signer_digest=sha384 signer_digest=sha1
token openssl-sha1-certificate 2048 ess_cert_id_alg=sha256 ess_cert_id_alg=sha1
