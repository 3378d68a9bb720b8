import com.sun.net.httpserver.HttpServer;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;

/** The JDK's own HTTP server, or with a port its HttpClient. */
public class Http {
    public static void main(String[] arguments) throws Exception {
        if (arguments.length == 0) {
            serve();
        } else {
            fetch(URI.create("http://127.0.0.1:" + arguments[0] + "/echo"));
        }
    }

    static void serve() throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getByName("127.0.0.1"), 0), 0);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/echo", exchange -> {
            byte[] body = exchange.getRequestBody().readAllBytes();
            exchange.sendResponseHeaders(200, body.length);
            try (OutputStream out = exchange.getResponseBody()) {
                out.write(body);
            }
        });
        server.start();
        System.out.println("listening on port " + server.getAddress().getPort());
    }

    static void fetch(URI address) throws Exception {
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        HttpRequest.Builder request = HttpRequest.newBuilder(address);
        for (int i = 0; i < 300; i++) {
            String sent = "request " + i;
            String received =
                client.send(request.POST(BodyPublishers.ofString(sent)).build(), BodyHandlers.ofString()).body();
            check(sent.equals(received));
        }
        byte[] large = new byte[10_000_000];
        new Random(1).nextBytes(large);
        List<CompletableFuture<Void>> answers = new ArrayList<>();
        for (int i = 0; i < 8; i++) {
            HttpRequest post = request.POST(BodyPublishers.ofByteArray(large)).build();
            answers.add(client.sendAsync(post, BodyHandlers.ofByteArray())
                .thenAccept(answer -> check(Arrays.equals(large, answer.body()))));
        }
        for (CompletableFuture<Void> answer : answers) {
            answer.get();
        }
        System.out.println("308 answers");
    }

    static void check(boolean right) {
        if (!right) {
            throw new IllegalStateException("the answer differs");
        }
    }
}
