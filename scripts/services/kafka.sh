#!/usr/bin/env bash
# Apache Kafka, one KRaft node (broker and controller in one JVM), from Maven Central jars.
#   KAFKA_PORT (a free one of the hundred from 59000 on; the controller listens 200 above)  KAFKA_VERSION (4.4.0)  KAFKA_HEAP (512m)
name=kafka
. "$(dirname "$(readlink -f "$0")")/lib.sh"
pick_port() { use_port "${KAFKA_PORT:-}" 59000; controller_port=$((port + 200)); }
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

configure() {
  cat >"$home/server.properties" <<CONF
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$controller_port
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$port
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
    jvm -Xmx128m kafka.tools.StorageTool format --standalone -t "$id" -c "$home/server.properties" >>"$logfile" 2>&1 \
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
