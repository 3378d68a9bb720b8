import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;

/** Sends back what comes, with one thread that selects, on a socket of both families. */
public class Selector {
    public static void main(String[] arguments) throws Exception {
        java.nio.channels.Selector selector = java.nio.channels.Selector.open();
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.bind(new InetSocketAddress(0));
        listener.configureBlocking(false);
        listener.register(selector, SelectionKey.OP_ACCEPT);
        System.out.println("listening on port " + listener.socket().getLocalPort());
        while (true) {
            selector.select();
            for (SelectionKey key : selector.selectedKeys()) {
                if (key.isAcceptable()) {
                    SocketChannel connection = listener.accept();
                    connection.configureBlocking(false);
                    connection.register(selector, SelectionKey.OP_READ, ByteBuffer.allocateDirect(30_000));
                } else {
                    echo(key, (SocketChannel) key.channel(), (ByteBuffer) key.attachment());
                }
            }
            selector.selectedKeys().clear();
        }
    }

    static void echo(SelectionKey key, SocketChannel connection, ByteBuffer buffer) throws Exception {
        if (key.isReadable() && connection.read(buffer) < 0) {
            connection.close();
            return;
        }
        buffer.flip();
        connection.write(buffer);
        buffer.compact();
        int wanted = buffer.position() > 0 ? SelectionKey.OP_WRITE : 0;
        key.interestOps(wanted | (buffer.hasRemaining() ? SelectionKey.OP_READ : 0));
    }
}
