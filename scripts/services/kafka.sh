#!/usr/bin/env bash
# Apache Kafka, one KRaft node (broker and controller in one JVM), from Maven Central jars.
#   KAFKA_PORT (a free one of the hundred from 59000 on; the controller listens 200 above, TLS with a
#   login 400 above: user posthouse, password secret, its certificate: tls.crt)
#   KAFKA_VERSION (4.4.0)  KAFKA_HEAP (512m)
name=kafka
. "$(dirname "$(readlink -f "$0")")/lib.sh"
pick_port() { use_port "${KAFKA_PORT:-}" 59000; controller_port=$((port + 200)); secure_port=$((port + 400)); }
version=${KAFKA_VERSION:-4.4.0}

install() {
  # kafka-tools-api is named by kafka_2.13's pom but is not on Central; only the
  # console tools use it. Without log4j-slf4j-impl the broker logs nothing at all.
  maven_libs "
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version>
      <exclusions><exclusion><groupId>org.apache.kafka</groupId><artifactId>kafka-tools-api</artifactId></exclusion></exclusions>
    </dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.5</version></dependency>"
}

# A certificate of its own for 127.0.0.1, and a file with it and its key as Kafka reads it.
certify() {
  [ -s "$home/tls.pem" ] && return 0
  openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
    -keyout "$home/tls.key" -out "$home/tls.crt" 2>/dev/null || die "openssl could not make a certificate"
  cat "$home/tls.key" "$home/tls.crt" >"$home/tls.pem"
}

configure() {
  certify
  cat >"$home/server.properties" <<CONF
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$controller_port
listeners=PLAINTEXT://127.0.0.1:$port,SECURE://127.0.0.1:$secure_port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$port,SECURE://127.0.0.1:$secure_port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_posthouse="secret";
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location=$home/tls.pem
controller.listener.names=CONTROLLER
log.dirs=$home/data
num.partitions=4
auto.create.topics.enable=false
# One node: every internal topic has one replica, and few partitions so that the first group starts fast.
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# A killed consumer is noticed after six seconds, not forty-five: its partitions go on elsewhere.
group.consumer.session.timeout.ms=6000
group.consumer.min.session.timeout.ms=6000
group.consumer.heartbeat.interval.ms=1000
group.consumer.min.heartbeat.interval.ms=1000
CONF
  cat >"$home/log4j2.properties" <<'CONF'
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c - %m%n
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
logger.ready.name = kafka.server.KafkaRaftServer
logger.ready.level = INFO
logger.ready2.name = kafka.server.BrokerServer
logger.ready2.level = INFO
CONF
}

jvm() { java "-Dlog4j2.configurationFile=$home/log4j2.properties" -cp "$home/lib/*" "$@"; }

start() {
  configure
  if [ ! -s "$home/data/meta.properties" ]; then
    # A cluster id is 16 random bytes in URL-safe base64 without padding.
    local id
    id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')
    id=${id/#-/A} # one that begins with a dash would be read as an option
    jvm -Xmx128m kafka.tools.StorageTool format --standalone -t "$id" \
      --add-scram 'SCRAM-SHA-512=[name=posthouse,password=secret]' -c "$home/server.properties" >>"$logfile" 2>&1 \
      || { tail "$logfile" >&2; die "could not format the log directory"; }
  fi
  : >"$logfile"
  spawn java "-Xms${KAFKA_HEAP:-512m}" "-Xmx${KAFKA_HEAP:-512m}" -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError -XX:MaxGCPauseMillis=20 \
    "-Dlog4j2.configurationFile=$home/log4j2.properties" -Djava.awt.headless=true \
    -cp "$home/lib/*" kafka.Kafka "$home/server.properties"
  # The port opens before the broker is unfenced; the log line comes after.
  wait_until 60 grep -q 'Kafka Server started' "$logfile"
  wait_until 10 port_open "$port"
}

stop() { stop_pid TERM 30; }
url() { echo "127.0.0.1:$port"; }
main "$@"
